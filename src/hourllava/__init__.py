"""hourllava: watch a video once, ask it anything, for as long as you like."""

__version__ = "0.1.0"
