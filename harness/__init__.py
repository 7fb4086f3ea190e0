"""ddbench: a benchmark harness for dataset distillation.

Everything that users and plugin authors need is a name of this package (``__init__.pyi`` lists them); a name's module
is imported when it is first used, so that ``import harness`` is instant and never imports torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.2.0"
