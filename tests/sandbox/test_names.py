"""Names of namespaces: given, taken back, seen from outside."""

from tests.sandbox.conftest import Python

ENTER = """
    import os
    from netwarren.kernel import netns
    from netwarren.sandbox import Sandbox, names
    Sandbox().enter()
    host = netns.inode_of()
    made = netns.create("made")
"""


def test_a_published_name_is_the_namespace(ordinary: Python) -> None:
    ordinary.run(
        ENTER
        + """
    assert names.publish("pod-a", made.fd)
    assert os.stat(os.path.join(names.directory(), "pod-a")).st_ino == made.inode
    """
    )


def test_a_name_is_given_once(ordinary: Python) -> None:
    ordinary.run(
        ENTER
        + """
    assert names.publish("pod-a", made.fd)
    other = netns.create("other")
    assert not names.publish("pod-a", other.fd)
    assert os.stat(os.path.join(names.directory(), "pod-a")).st_ino == made.inode
    """
    )


def test_a_name_taken_back_may_be_given_again(ordinary: Python) -> None:
    ordinary.run(
        ENTER
        + """
    names.publish("pod-a", made.fd)
    names.withdraw("pod-a")
    assert os.listdir(names.directory()) == []
    assert names.publish("pod-a", made.fd)
    """
    )


def test_taking_back_a_name_that_is_gone_does_nothing(ordinary: Python) -> None:
    ordinary.run(ENTER + "    names.withdraw('never-was')")


def test_names_are_seen_from_outside_the_sandbox(ordinary: Python) -> None:
    process = ordinary.begin(
        ENTER
        + """
    names.publish("pod-a", made.fd)
    names.publish("pod-b", made.fd)
    print(os.getpid(), made.inode, flush=True)
    input()
    """
    )
    assert process.stdout is not None
    pid, inode = process.stdout.readline().split()
    look = """
        import os, sys
        from netwarren.sandbox import names
        found = names.published(int(sys.argv[1]))
        assert list(found) == ["pod-a", "pod-b"], found
        assert {os.stat(path).st_ino for path in found.values()} == {int(sys.argv[2])}
    """
    ordinary.run(look, pid, inode)
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


def test_a_process_that_is_gone_has_no_names(ordinary: Python) -> None:
    ordinary.run(
        """
        from netwarren.sandbox import names
        try:
            names.published(2 ** 22 + 1)
        except OSError:
            pass
        else:
            raise AssertionError
        """
    )


def test_a_name_whose_process_is_gone_may_be_given_again(ordinary: Python) -> None:
    ordinary.run(
        ENTER
        + """
    child = os.fork()
    if child == 0:
        names.publish("cluster", made.fd)
        names.publish("pod-a.cluster", made.fd)
        os._exit(0)
    os.waitpid(child, 0)
    assert sorted(os.listdir(names.directory())) == ["cluster", "pod-a.cluster"]
    assert names.publish("cluster", made.fd)
    assert os.listdir(names.directory()) == ["cluster"], "what belonged to it is gone, too"
    assert os.stat(os.path.join(names.directory(), "cluster")).st_ino == made.inode
    """
    )
