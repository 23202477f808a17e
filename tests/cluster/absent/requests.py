raise ImportError("tests/cluster/absent: no worker of the tests needs it")
