"""Pixel transforms: geometry, colour, RandAugment, erasing and mixup."""
