"""File formats of distilled sets, one module each; nothing is read in a way that can run code."""

from harness.types.formats.content import Content as Content
from harness.types.formats.content import Reading as Reading
from harness.types.formats.content import display_name as display_name
from harness.types.formats.folder import ABOUT as ABOUT
from harness.types.formats.format import LAST as LAST
from harness.types.formats.format_table import FORMATS as FORMATS
from harness.types.formats.format_table import read_content as read_content
from harness.types.formats.format_table import save_distilled as save_distilled
from harness.types.formats.format_table import writer_for as writer_for
from harness.types.formats.scores import SCORES as SCORES
