"""What the tests of every folder need; what only one folder needs is in that folder's conftest."""

import signal

pytest_plugins = ["pytester"]

# Whoever started us may have had some signals ignored (nohup, a job in the background of a script), and
# programs inherit that; tests send them and mean them.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
