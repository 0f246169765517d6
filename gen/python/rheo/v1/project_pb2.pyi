from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Project(_message.Message):
    __slots__ = ("name", "description", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    revision: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ("name", "description", "protected", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    protected: bool
    revision: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., protected: bool = ..., revision: _Optional[int] = ...) -> None: ...
