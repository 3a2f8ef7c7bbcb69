"""Measures of samples: draw them, turn pictures into features, compare sets of features, judge paths, and know the errors."""
