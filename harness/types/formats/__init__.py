"""File formats of distilled sets, a module each; nothing is read in a way that can run code."""

from harness.types.formats.content import Content as Content
from harness.types.formats.content import Reading as Reading
from harness.types.formats.content import display_name as display_name
from harness.types.formats.folder import ABOUT as ABOUT
from harness.types.formats.format import LAST as LAST
from harness.types.formats.format import SetFormat as SetFormat
from harness.types.formats.own import OWN_FORMAT as OWN_FORMAT
from harness.types.formats.own import serialized as serialized
from harness.types.formats.scores import SCORES as SCORES
