from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("invitation_id", "secret", "csr_der", "signing_key", "proof", "encryption_key")
    INVITATION_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_KEY_FIELD_NUMBER: _ClassVar[int]
    invitation_id: str
    secret: bytes
    csr_der: bytes
    signing_key: bytes
    proof: bytes
    encryption_key: bytes
    def __init__(self, invitation_id: _Optional[str] = ..., secret: _Optional[bytes] = ..., csr_der: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., encryption_key: _Optional[bytes] = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("certificate_pem", "roster_index")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    ROSTER_INDEX_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: str
    roster_index: int
    def __init__(self, certificate_pem: _Optional[str] = ..., roster_index: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("institution", "replaces_serial", "csr_der", "new_signing_key", "proof", "new_proof")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    REPLACES_SERIAL_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    NEW_SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    NEW_PROOF_FIELD_NUMBER: _ClassVar[int]
    institution: str
    replaces_serial: str
    csr_der: bytes
    new_signing_key: bytes
    proof: bytes
    new_proof: bytes
    def __init__(self, institution: _Optional[str] = ..., replaces_serial: _Optional[str] = ..., csr_der: _Optional[bytes] = ..., new_signing_key: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., new_proof: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("certificate_pem", "roster_index")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    ROSTER_INDEX_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: str
    roster_index: int
    def __init__(self, certificate_pem: _Optional[str] = ..., roster_index: _Optional[int] = ...) -> None: ...

class DiagnoseRequest(_message.Message):
    __slots__ = ("certificate_pem",)
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: str
    def __init__(self, certificate_pem: _Optional[str] = ...) -> None: ...

class DiagnoseResponse(_message.Message):
    __slots__ = ("code", "message", "fix", "coordinator_time")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_TIME_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    fix: str
    coordinator_time: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., fix: _Optional[str] = ..., coordinator_time: _Optional[str] = ...) -> None: ...
