"""A stand-in for the package wandb: every call is one line of JSON in the file WANDB_RECORD."""
import json
import os
from types import SimpleNamespace


def _record(call, **content):
    with open(os.environ['WANDB_RECORD'], 'a') as file:
        file.write(json.dumps(dict(call=call, **content), default=str) + '\n')


def init(**kwargs):
    _record('init', kwargs=kwargs)


def define_metric(name, **kwargs):
    _record('define_metric', name=name, kwargs=kwargs)


class Image:
    def __init__(self, image):
        self.shape = list(image.shape)


def log(data, commit=None):
    data = {key: value.shape if isinstance(value, Image) else float(value)
            for key, value in data.items()}
    _record('log', data=data, commit=commit)


def join():
    _record('join')


config = SimpleNamespace(update=lambda content, **kwargs: _record('config', content=content))
run = SimpleNamespace(log_code=lambda name=None: _record('log_code', name=name))
