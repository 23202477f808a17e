"""The sections that ``supervisor-sio init`` prints."""

from __future__ import annotations

import shlex

from ..common.clusters import CLUSTER, USUAL, ctl_command, name_fault
from ..common.modes import EVENTLET, THREADING, AsyncMode
from ..settings import parse_settings

#: What a supervisord that runs other programs already has.
_SUPERVISORD = """\
; supervisord, with a cluster of Socket.IO workers; save it as supervisord.conf, then
;
;   supervisor-sio check supervisord.conf
;   supervisord -c supervisord.conf
;   supervisorctl -c supervisord.conf sio status

[supervisord]
logfile = %(here)s/supervisord.log
pidfile = %(here)s/supervisord.pid

[unix_http_server]
; Where supervisorctl finds supervisord; mode 0700, so no password is needed.
file = %(here)s/supervisor.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://%(here)s/supervisor.sock

"""

_INTO_MAIN = """\
; --- Into the main supervisord.conf -----------------------------------------

"""

_MAIN = """\
; The port that clients connect to, and every other setting of the cluster.
{several}[rpcinterface:{cluster}]
supervisor.rpcinterface_factory = supervisor_sio.rpcinterface:make_rpcinterface
listen = {listen}
; If supervisord runs as root and router and workers as www-data (see below), www-data
; must be able to enter the directory with the cluster's sockets.
;chown = root:www-data
;chmod = 0710

; "{ctl} ..."; in the main file, because supervisorctl reads no included files.
[ctlplugin:sio]
supervisor.ctl_factory = supervisor_sio.ctlplugin:make_ctlplugin

"""

_BELOW = """\
; --- Below them, or into a file that [include] names ------------------------

"""

_PROGRAMS = """\
; The router passes each connection to a worker, and relays emits between workers.
; Write the full path of supervisor-sio, here and below, if it is in a virtual environment and
; supervisord is not, as Debian's supervisord is.
[eventlistener:{cluster}]
command = supervisor-sio router{environment}
events = PROCESS_STATE
; Must hold two events of each process, which wait while the router starts.
buffer_size = {buffer_size}
; Router and workers handle input from the internet: when supervisord runs as root,
; set user so that they do not run as root.
;user = www-data

; The workers: numprocs is the number of cores to use.{note}
[program:{program}]
command = supervisor-sio worker {option}{application}{environment}
process_name = %(program_name)s_%(process_num)02d
numprocs = {workers}
; A worker that ends within startsecs is restarted startretries (3) times; one that ends
; later is always restarted, with a growing pause after some failures in a row.
startsecs = 1
; Longer than drain_timeout (10 s), so that a stopping worker can finish its
; requests before supervisord kills it.
stopwaitsecs = 15
; One log for both outputs of a worker: supervisorctl tail -f {program}:{program}_00
redirect_stderr = true
; As for the router.
;user = www-data
; The directory from which {application} can be imported, if it is not installed:
;directory = /srv/myapp
"""


_SEVERAL = """\
; With several clusters, each program must name its cluster, also those of the first one.
"""

_ENVIRONMENT = f'\nenvironment = {CLUSTER}="{{cluster}}"'

_POOL = "\n; --threads N before the application sets how many handlers a worker runs at a time."


def make_sections(
    application: str,
    listen: str,
    workers: int,
    mode: AsyncMode = EVENTLET,
    full: bool = False,
    cluster: str = USUAL,
) -> str:
    """Make the sections for a cluster.

    :param full: add the sections of supervisord itself.
    :param cluster: the cluster's name.
    :raises ValueError: for an invalid argument; the text says why.
    """
    module, _, name = application.partition(":")
    if not module or not name or len(application.partition("(")[0].split()) > 1:
        raise ValueError(f"{application!r} is not module:app, for example chat:app")
    if workers < 1:
        raise ValueError(f"{workers} workers are too few; give 1 or more")
    fault = name_fault(cluster)
    if fault:
        raise ValueError(fault)
    addresses = parse_settings({"listen": listen}).listen
    main, programs = _INTO_MAIN + _MAIN, _BELOW + _PROGRAMS
    if full:
        main, programs = _MAIN, _PROGRAMS
    return (_SUPERVISORD if full else "") + (main + programs).format(
        # supervisord expands percent signs.
        listen=", ".join(map(str, addresses)).replace("%", "%%"),
        note=_POOL if mode is THREADING else "",
        option="" if mode is EVENTLET else f"--async-mode {mode.name} ",
        application=shlex.quote(application).replace("%", "%%"),
        workers=workers,
        cluster=cluster,
        ctl=ctl_command(cluster),
        program="workers" if cluster == USUAL else f"{cluster}_workers",
        several="" if cluster == USUAL else _SEVERAL,
        environment="" if cluster == USUAL else _ENVIRONMENT.format(cluster=cluster),
        # Twice what the workers need, for the router and other programs.
        buffer_size=max(100, 4 * workers),
    )
