//! Scores the classifier on labelled samples, the way `failures/score.py` does, and tests it through its public function.
