"""A program that dies makes the test fail that it died in, and what it wrote is shown."""

from tests.plugin.conftest import Session

SERVER = """
    import os
    import sys
    import pytest
    from netwarren import log

    DIES = ["/bin/sh", "-c", "echo up; read _; echo out of memory; exit 3"]

    def serve(pod):
        # A pipe of our own, so that the test says when the server dies.
        read, write = os.pipe()
        program = pod.popen(DIES, stdin=read, ready=log("up"))
        os.close(read)
        return program, write

    def die(program, write):
        os.close(write)
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
"""


def test_a_servers_unexpected_death_fails_the_test_and_shows_its_output(session: Session) -> None:
    session.file(
        "test_it.py",
        SERVER
        + """
    def test_server(cluster):
        die(*serve(cluster.add_pod("server")))

    def test_after(cluster):
        pass
    """,
    )
    result = session.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ test_server _*",
            "E  *ProgramError: /bin/sh -c * in pod 'server' has exited 3 and nobody expected that*",
            "E  *out of memory",
            "*- netwarren cluster -*",
            "  program * exited 3",
            "  | out of memory",
        ]
    )


def test_the_test_it_died_in_fails_where_several_share_a_cluster(session: Session) -> None:
    session.file(
        "test_it.py",
        SERVER
        + """
    @pytest.fixture(scope="module")
    def server(module_cluster):
        return serve(module_cluster.add_pod("server"))

    def test_before(server, module_cluster):
        pass

    def test_dies(server, module_cluster):
        die(*server)

    def test_after(server, module_cluster):
        pass
    """,
    )
    result = session.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_dies*"])


def test_a_death_does_not_hide_what_failed_in_the_test(session: Session) -> None:
    session.file(
        "test_it.py",
        SERVER
        + """
    def test_server(cluster):
        die(*serve(cluster.add_pod("server")))
        assert 1 + 1 == 3

    def test_fails_by_word(cluster):
        die(*serve(cluster.add_pod("server")))
        pytest.fail("by word")
    """,
    )
    result = session.run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E  *assert (1 + 1) == 3",
            "E  *And in the cluster: pod 'server': /bin/sh * has exited 3 and nobody expected that*",
            "  | out of memory",
        ]
    )
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_server - *assert (1 + 1) == 3"])


def test_a_death_after_the_test_is_an_error_of_its_teardown(session: Session) -> None:
    session.file(
        "test_it.py",
        SERVER
        + """
    @pytest.fixture
    def server(cluster):
        program, write = serve(cluster.add_pod("server"))
        yield
        die(program, write)

    def test_server(server):
        pass
    """,
    )
    result = session.run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_server*", "E  *has exited 3*", "E  *out of memory"]
    )


def test_all_deaths_are_told(session: Session) -> None:
    session.file(
        "test_it.py",
        SERVER
        + """
    def test_servers(cluster):
        for name in ("one", "two"):
            die(*serve(cluster.add_pod(name)))
    """,
    )
    result = session.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E  *in pod 'one' has exited 3*", "E  *And also: *in pod 'two' has exited 3*"]
    )


def test_a_death_in_an_async_test_fails_it_as_well(session: Session) -> None:
    session.ini("asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function", warnings="default")
    session.file(
        "test_it.py",
        SERVER
        + """
    async def test_server(cluster):
        async with cluster.add_pod("server") as pod:
            die(*serve(pod))
    """,
    )
    session.run(plugins="asyncio").assert_outcomes(failed=1)


def test_a_test_that_is_skipped_or_stops_its_server_is_left_alone(session: Session) -> None:
    session.file(
        "test_it.py",
        SERVER
        + """
    def test_stops(cluster):
        program, write = serve(cluster.add_pod("server"))
        program.stop()

    def test_skips(cluster):
        pytest.skip("no reason")
    """,
    )
    session.run().assert_outcomes(passed=1, skipped=1)


def test_a_program_that_is_not_ready_fails_the_test_with_its_output(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        from netwarren import port

        def test_server(cluster):
            pod = cluster.add_pod("server")
            pod.popen(["/bin/sh", "-c", "echo no such database; exec sleep 1000"], ready=port(80), ready_timeout=0.3)
        """,
    )
    result = session.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E  *is not ready within 0.3 s: *nothing listens on 80/tcp*", "E  *no such database"]
    )
