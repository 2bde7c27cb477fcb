"Video understanding as a book of notebooks"
__version__ = "0.1.0"
