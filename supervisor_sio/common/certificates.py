"""Certificates for TLS at the shared port."""

from __future__ import annotations

import os
import ssl
from typing import Optional


def make_context(certfile: str, keyfile: Optional[str]) -> ssl.SSLContext:
    """A server context: TLS 1.2 and up, and the ciphers of Python's defaults.

    :raises OSError: when a file cannot be read.
    :raises ssl.SSLError: (an OSError) when the files are not a certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # With renegotiation, a client of TLS 1.2 could make the server sign repeatedly.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Never ask a terminal for the password of an encrypted key.
    context.load_cert_chain(certfile, keyfile, password=lambda: "")
    return context


def describe(error: OSError, certfile: str, keyfile: Optional[str]) -> str:
    """Describe in a few words what is wrong with the files."""
    if isinstance(error, ssl.SSLError):
        files = certfile if keyfile is None else f"{certfile} and {keyfile}"
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return f"{files}: not a certificate and its key without password ({reason})"
    # OpenSSL does not say which file it could not read.
    unreadable = (file for file in (certfile, keyfile) if file and not os.access(file, os.R_OK))
    file = error.filename or next(unreadable, certfile)
    return f"{file}: {(error.strerror or str(error)).lower()}"
