"""Explaining: the judgement that the service would come to, put together from the same settings, and not acted on."""

import signal
from contextlib import ExitStack

from inbox.app.opening import locality_of, looked_at, volume_of
from inbox.app.values import quiet_of, terms_of, timing_of
from inbox.config import Config
from inbox.core.errors import WorkerError, describe_error
from inbox.pipeline.explaining import Explanation, Looker, Service, judge
from inbox.utils.clock import SystemClock


def explain_file(config: Config, file: str, *, deep: bool = False) -> Explanation:
    """
    Say what would become of a file, given by its name in the uploads or by any path; nothing is changed.

    A database that cannot be asked is a fact like the others. Raises PermanentError when there is no such file,
    StorageError when the volume is in trouble.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when somebody opens the file just while it is judged
    locality = locality_of(config)
    service = Service(
        volume=volume_of(config),
        terms=terms_of(config),
        quiet=quiet_of(config, locality),
        trust_age=locality == "local",
        timing=timing_of(config),
        quarantines_not_archives=config.not_archives == "quarantine",
    )
    with ExitStack() as stack:
        sessions, why_not = None, ""
        try:
            sessions = stack.enter_context(looked_at(config))
        except (WorkerError, OSError) as error:
            why_not = describe_error(error)
        looker = Looker(service, SystemClock(), sessions, why_not=why_not)
        return judge(looker.look(looker.find(file), deep=deep))
