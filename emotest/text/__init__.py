"""Text in, numbers out: emoji as graphemes, sentences, and the rates of one in the other."""
