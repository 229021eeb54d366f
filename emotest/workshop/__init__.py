"""Where artefacts are made: requests in, entries of the store out.

`progress` is what a worker tells; `bench` holds one base in memory; the rooms beside it each make
one kind of artefact or let one kind of intervention act; `making` and `acting` know which; `crew`
runs workers side by side and is all that a session sees.
"""
