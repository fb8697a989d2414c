"""Flags that several verbs share: their short forms, and what stands for their values in the help."""

import tyro

IMAGES = tyro.conf.arg(metavar="IMAGE…", help_behavior_hint="")
MODEL = tyro.conf.arg(aliases=["-m"], metavar="MODEL")
MODELS = tyro.conf.arg(aliases=["-m"], metavar="MODEL…", help_behavior_hint="")
OUT = tyro.conf.arg(aliases=["-o"], metavar="DIR")
SAMPLES = tyro.conf.arg(aliases=["-n"], metavar="N")
DATA = tyro.conf.arg(metavar="DIR")
DEVICE = tyro.conf.arg(
    metavar="{cpu,cuda,mps}",
    help="where to compute; if not given, an accelerator if there is one.",
    help_behavior_hint="",
)
# several values after one flag; tyro would show [STR [STR ...]]
LABELS = tyro.conf.arg(metavar="LABEL…", help_behavior_hint="")
NAMES = tyro.conf.arg(metavar="NAME…", help_behavior_hint="")
