"""LookupViT and LookupViViT: vision transformers that refine few compressed tokens and look up the rest."""

from lookupvivit.models.catalogue import create_model, list_models

__all__ = ["create_model", "list_models"]
__version__ = "0.1.0"
