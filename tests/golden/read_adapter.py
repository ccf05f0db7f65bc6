"""Prints what torch.load finds in an adapter file, as JSON that compares tensors exactly."""

import json
import sys

import torch


def describe(value):
    if isinstance(value, dict):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": value.flatten().tolist()}
    return value


print(json.dumps(describe(torch.load(sys.argv[1], weights_only=True))))
