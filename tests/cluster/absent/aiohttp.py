raise ImportError("tests/cluster/absent: no server process of the tests needs it")
