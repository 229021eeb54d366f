"""Has this checkpoint drifted? The audit as a gate: `--emo-base B --emo-tuned T -m audit`.

Nothing is trained. Both models answer the same prompts until the evidence suffices; the report
beside the verdicts shows their answers side by side.
"""

import pytest

pytestmark = pytest.mark.audit


def test_the_checkpoint_writes_as_many_emoji_as_before(emo_audit, judge):
    """The share of answers with an emoji lies within the margin of the base's, shown by
    equivalence; drift and an audit that could not tell both fail."""
    judge(emo_audit.verdict)
