"""Label maps of the TF Object Detection API: text files that give each label's name a number.

Source: StringIntLabelMap in
https://github.com/tensorflow/models/blob/master/research/object_detection/protos/string_int_label_map.proto.
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from brain_tumor.runtime.errors import InputError

# Other fields of an item, such as display_name, are not needed.
_MESSAGES = """
name: "string_int_label_map.proto"
package: "object_detection.protos"
message_type {
  name: "StringIntLabelMapItem"
  field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "id" number: 2 label: LABEL_OPTIONAL type: TYPE_INT32 }
}
message_type {
  name: "StringIntLabelMap"
  field {
    name: "item" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "StringIntLabelMapItem"
  }
}
"""


def _label_map_class() -> Any:
    # A separate descriptor pool: the API's package registers these names in the default one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_MESSAGES, FileDescriptorProto()))
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("object_detection.protos.StringIntLabelMap")
    )


_LabelMap = _label_map_class()


def read_label_map(path: Path) -> list[tuple[int, str]]:
    """Reads the number and name of each label of a `.pbtxt` file.

    Raises:
        InputError: It cannot be read, or a label has no number or no name.
    """
    try:
        content = text_format.Parse(path.read_bytes(), _LabelMap(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise InputError(
            f"{path} is not a readable label map; fix it, or give the names to dataset.labels."
        ) from error
    for position, item in enumerate(content.item, 1):
        if not (item.HasField("name") and item.HasField("id")):
            raise InputError(f"{path}: item {position} has no name or no id; give it both.")
    return [(item.id, item.name) for item in content.item]
