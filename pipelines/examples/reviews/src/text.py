"""How a text becomes words. Imported by featurize.py."""

STOP = {"the", "a", "was", "with", "and", "in", "this", "its", "but", "had"}


def words(text):
    return [word for word in text.lower().split() if word not in STOP]
