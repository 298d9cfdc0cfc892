"""What is recorded, and where: contents, events, state, sessions, and the services that keep them.

This package knows nothing of agents; ``parallel_agent`` is built on it.
"""

from __future__ import annotations

from session.actions import BranchOutcome, EventActions
from session.artifact import (
    Artifact,
    ArtifactError,
    ArtifactNameError,
    ArtifactService,
    ArtifactTypeError,
    DamagedArtifactError,
    InMemoryArtifactService,
)
from session.codec import Codec, CodecError
from session.content import (
    Content,
    FunctionCall,
    FunctionResponse,
    InlineData,
    OtherPart,
    Part,
    Text,
)
from session.errors import (
    LeaseLostError,
    SchemaVersionError,
    SequenceConflictError,
    SessionBusyError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from session.event import USER, Event, Origin
from session.folder_artifacts import FolderArtifactService
from session.in_memory import InMemorySessionService
from session.lease import Lease, UnfinishedRun
from session.memory import InMemoryMemoryService, MemoryEntry, MemoryService
from session.portable import SessionFormatError
from session.request import InputRequest
from session.service import SessionInfo, SessionService
from session.session import Session, SessionKey, fold
from session.state import (
    APP_PREFIX,
    REDUCERS,
    TEMP_PREFIX,
    USER_PREFIX,
    FrozenDict,
    FrozenList,
    FrozenValueError,
    Reducer,
    UnstorableError,
    freeze,
    thaw,
)

__all__ = [
    "APP_PREFIX",
    "REDUCERS",
    "TEMP_PREFIX",
    "USER",
    "USER_PREFIX",
    "Artifact",
    "ArtifactError",
    "ArtifactNameError",
    "ArtifactService",
    "ArtifactTypeError",
    "BranchOutcome",
    "Codec",
    "CodecError",
    "Content",
    "DamagedArtifactError",
    "Event",
    "EventActions",
    "FolderArtifactService",
    "FrozenDict",
    "FrozenList",
    "FrozenValueError",
    "FunctionCall",
    "FunctionResponse",
    "InMemoryArtifactService",
    "InMemoryMemoryService",
    "InMemorySessionService",
    "InlineData",
    "InputRequest",
    "Lease",
    "LeaseLostError",
    "MemoryEntry",
    "MemoryService",
    "Origin",
    "OtherPart",
    "Part",
    "Reducer",
    "SchemaVersionError",
    "SequenceConflictError",
    "Session",
    "SessionBusyError",
    "SessionError",
    "SessionExistsError",
    "SessionFormatError",
    "SessionInfo",
    "SessionKey",
    "SessionNotFoundError",
    "SessionService",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "Text",
    "UnfinishedRun",
    "UnstorableError",
    "fold",
    "freeze",
    "thaw",
]
