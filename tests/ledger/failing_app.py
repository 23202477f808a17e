"""An application whose import fails, after supervisord has taken it for running."""

import time

time.sleep(1.2)
raise RuntimeError("no database")
