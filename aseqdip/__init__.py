"""aseqdip: image reconstruction with untrained networks, around autoencoding sequential DIP."""

__version__ = "0.1.0"
