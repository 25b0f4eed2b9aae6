"""TFRecord files of `tf.train.Example` without TensorFlow, whose import takes seconds.

Sources: the file format is at
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details, the messages are in
tensorflow/core/example/feature.proto and example.proto.
"""

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pool, message_factory, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto

_MESSAGES = """
syntax: "proto3"
package: "tensorflow"
name: "example.proto"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 oneof_index: 0 type: TYPE_MESSAGE type_name: "BytesList" }
  field { name: "float_list" number: 2 oneof_index: 0 type: TYPE_MESSAGE type_name: "FloatList" }
  field { name: "int64_list" number: 3 oneof_index: 0 type: TYPE_MESSAGE type_name: "Int64List" }
  oneof_decl { name: "kind" }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "FeatureEntry" }
  nested_type {
    name: "FeatureEntry"
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: "Feature" }
    options { map_entry: true }
  }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: "Features" }
}
"""


def _example_class() -> Any:
    # A separate descriptor pool: TensorFlow registers these names in the default one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_MESSAGES, FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = _example_class()
"""The protobuf message `tf.train.Example`."""


class RecordError(Exception):
    """A record cannot be read. The message gives the reason."""


def write_record(file: BinaryIO, record: bytes) -> None:
    """Appends a record: its length, the length's checksum, its bytes, their checksum."""
    length = struct.pack("<Q", len(record))
    file.write(b"".join((length, _masked_crc32c(length), record, _masked_crc32c(record))))


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """Iterates over the records of a file.

    Raises:
        RecordError: The file is truncated, or a checksum is wrong.
    """
    size = os.fstat(file.fileno()).st_size
    while head := file.read(12):
        if len(head) < 12 or _masked_crc32c(head[:8]) != head[8:]:
            raise RecordError("its length is truncated or damaged")
        (length,) = struct.unpack("<Q", head[:8])
        # Checked before reading, since a wrong length could exceed the memory.
        if length > size - file.tell():
            raise RecordError("its end is missing")
        record = file.read(length)
        if _masked_crc32c(record) != file.read(4):
            raise RecordError("its checksum is wrong")
        yield record


def _masked_crc32c(content: bytes) -> bytes:
    """The format's masked CRC32C: rotated, plus a constant."""
    checksum = google_crc32c.value(content)
    return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
