"""``pod.private_directory``: a directory of the pod's own, seen by its programs and through a path from outside."""

import os
import sys
from pathlib import Path

import pytest

from netwarren import ClosedError, Cluster, ConfigurationError, Pod, ProgramError
from netwarren.runtime import contents


def test_it_is_empty_and_writable_for_programs(pod: Pod) -> None:
    pod.private_directory("/etc")
    pod.check_output(["/bin/sh", "-c", "echo text >/etc/made"])
    assert "made" not in os.listdir("/etc")


def test_this_process_writes_what_programs_read_and_reads_what_they_write(pod: Pod) -> None:
    place = pod.private_directory("/var/log")
    (place / "from-outside").write_text("one")
    assert pod.check_output(["cat", "/var/log/from-outside"]) == "one"
    pod.check_output(["/bin/sh", "-c", "printf two >/var/log/from-inside"])
    assert (place / "from-inside").read_text() == "two"
    assert sorted(each.name for each in place.iterdir()) == ["from-inside", "from-outside"]


def test_programs_that_run_already_see_it(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "until test -e /opt/there; do :; done; cat /opt/there"])
    pod.private_directory("/opt", files={"there": "seen"})
    assert program.wait(30) == 0
    assert program.output == "seen"


def test_who_reads_a_file_that_is_written_anew_reads_the_old_one_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o640)
    target = os.open(tmp_path, os.O_PATH)
    with file.open() as reader:
        contents.write(target, {"file": "new and longer"})
        assert reader.read() == "old"
    os.close(target)
    assert file.read_text() == "new and longer"
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_is_written_touches_no_other_whatever_that_is_called(tmp_path: Path) -> None:
    place, host = tmp_path / "place", tmp_path / "host"
    place.mkdir()
    host.write_text("host")
    (place / ".one.new").symlink_to(host)
    target = os.open(place, os.O_PATH)
    contents.write(target, {".two.new": "kept", "one": "1", "two": "2"})
    os.close(target)
    assert host.read_text() == "host"
    assert sorted(os.listdir(place)) == [".one.new", ".two.new", "one", "two"]
    assert (place / ".two.new").read_text() == "kept"


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    target = os.open(tmp_path, os.O_PATH)
    before = os.umask(0o027)
    try:
        contents.write(target, {"file": "text"})
    finally:
        os.umask(before)
        os.close(target)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_nothing_is_left_beside_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    target = os.open(tmp_path, os.O_PATH)
    with pytest.raises(IsADirectoryError):
        contents.write(target, {"name": "text"})
    os.close(target)
    assert os.listdir(tmp_path) == ["name"]


def test_two_programs_of_a_pod_share_it_and_another_pod_does_not(pod: Pod, other: Pod) -> None:
    pod.private_directory("/opt")
    pod.check_output(["/bin/sh", "-c", "echo shared >/opt/file"])
    assert pod.check_output(["cat", "/opt/file"]) == "shared\n"
    assert other.check_output(["ls", "/opt"]).split() == sorted(os.listdir("/opt"))
    place = other.private_directory("/opt")
    assert list(place.iterdir()) == []


def test_it_starts_with_the_files_given(pod: Pod) -> None:
    files: dict[str, str | bytes] = {"nginx.conf": "user nobody;\n", "conf.d/deep/site.conf": b"\xff"}
    place = pod.private_directory("/etc/nginx", files=files)
    assert pod.check_output(["cat", "/etc/nginx/nginx.conf"]) == "user nobody;\n"
    assert (place / "conf.d" / "deep" / "site.conf").read_bytes() == b"\xff"


def test_it_may_start_as_a_copy(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_text("below")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o750)
    (tmp_path / "link").symlink_to("below/file")
    os.mkfifo(tmp_path / "pipe")
    place = pod.private_directory(str(tmp_path), copy=True, files={"below/file": "changed"})
    assert sorted(each.name for each in place.iterdir()) == ["below", "link", "script"]
    assert (place / "script").stat().st_mode & 0o777 == 0o750
    assert pod.check_output(["cat", f"{tmp_path}/link"]) == "changed"
    assert (tmp_path / "below" / "file").read_text() == "below"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_copy_leaves_out_what_cannot_be_read(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("open")
    (tmp_path / "closed").write_text("closed")
    (tmp_path / "closed").chmod(0)
    place = pod.private_directory(str(tmp_path), copy=True)
    assert os.listdir(place) == ["open"]


def test_a_copied_symbolic_link_never_leads_us_to_the_hosts_file(pod: Pod, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "file").write_text("host")
    (folder / "file").symlink_to(outside / "file")
    (folder / "dir").symlink_to(outside)
    place = pod.private_directory(str(folder), copy=True, files={"file": "ours"})
    assert pod.check_output(["cat", str(folder / "file")]) == "ours"
    assert (place / "file").read_text() == "ours"
    again = tmp_path / "again"
    again.mkdir()
    (again / "dir").symlink_to(outside)
    with pytest.raises(ConfigurationError, match="'dir' is a symbolic link there"):
        pod.private_directory(str(again), copy=True, files={"dir/file": "ours"})
    assert (outside / "file").read_text() == "host"
    assert os.listdir(again) == ["dir"]


@pytest.mark.parametrize("path", ["/var/lib/netwarren-test/deep", "/netwarren-test", "/run/netwarren-test/a"])
def test_it_need_not_exist_on_the_host(pod: Pod, path: str) -> None:
    parent = os.path.dirname(path)
    beside = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
    place = pod.private_directory(path, files={"file": "text"})
    assert pod.check_output(["cat", f"{path}/file"]) == "text"
    pod.check_output(["/bin/sh", "-c", f"echo >{path}/made"])
    assert (place / "made").exists()
    assert not os.path.exists(path)
    seen = pod.check_output(["ls", "-A", parent]).split()
    assert set(seen) >= {name for name in beside if name != "lost+found"}


def test_what_was_private_before_stays_when_a_new_name_is_made_in_the_root_directory(pod: Pod) -> None:
    opt = pod.private_directory("/opt", files={"first": "1"})
    pod.private_directory("/netwarren-test")
    (opt / "second").write_text("2")
    assert pod.check_output(["/bin/sh", "-c", "cat /opt/first /opt/second /etc/hostname"]) == "12first\n"
    assert pod.check_output(["ls", "/sys/class/net"]).split() == ["eth0", "lo"]


def test_private_directories_may_be_inside_others(pod: Pod) -> None:
    pod.private_directory("/opt", files={"file": "outer"})
    pod.private_directory("/opt/inner", files={"file": "inner"})
    assert pod.check_output(["/bin/sh", "-c", "cat /opt/file /opt/inner/file"]) == "outerinner"
    pod.private_directory("/var/lib/postgresql")
    with pytest.raises(ConfigurationError, match=r"'/var' would hide /var/lib/postgresql.*first"):
        pod.private_directory("/var")


def test_the_pods_own_files_are_in_a_private_etc(pod: Pod) -> None:
    place = pod.private_directory("/etc")
    names = ["hostname", "hosts", "nsswitch.conf", "resolv.conf"]
    assert sorted(os.listdir(place)) == names
    assert pod.check_output(["cat", "/etc/hostname"]) == "first\n"


def test_tmp_and_run_may_be_private(pod: Pod) -> None:
    pod.private_directory("/tmp", mode=0o1777)
    pod.private_directory("/run")
    assert pod.check_output(["/bin/sh", "-c", "ls -A /tmp /run; stat -c %a /tmp; touch /run/it"]) == (
        "/run:\n\n/tmp:\n1777\n"
    )


def test_a_program_starts_elsewhere_where_its_working_directory_is_hidden(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    pod.private_directory(str(tmp_path))
    assert pod.check_output(["pwd"]) == "/\n"
    with pytest.raises(ProgramError, match="below: No such file or directory"):
        pod.check_output(["pwd"], cwd=tmp_path / "below")
    assert pod.check_output(["pwd"], view=False) == f"{tmp_path}/below\n"


def test_it_belongs_to_the_caller_with_the_mode_asked_for(pod: Pod) -> None:
    for path, options, mode in (("/opt", {}, 0o755), ("/srv", {"mode": 0o700}, 0o700)):
        found = os.stat(pod.private_directory(path, **options))  # type: ignore[arg-type]
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (os.geteuid(), os.getegid(), mode)


def test_a_symbolic_link_is_followed_to_the_directory(pod: Pod) -> None:
    pod.private_directory("/opt")
    with pytest.raises(ConfigurationError, match="private to pod 'first' already"):
        pod.private_directory("/proc/self/root/opt/../opt")


@pytest.mark.parametrize("path", ["relative", "/", "/proc", "/sys", "/dev", "/usr/.."])
def test_some_directories_cannot_be_private(pod: Pod, path: str) -> None:
    with pytest.raises(ConfigurationError, match="the absolute path of a directory other than /, /dev"):
        pod.private_directory(path)


def test_a_file_cannot_be_private(pod: Pod) -> None:
    with pytest.raises(ConfigurationError, match="it is not a directory"):
        pod.private_directory(sys.executable)


@pytest.mark.parametrize("name", ["/etc/passwd", "../passwd", "a/../../b", "", "."])
def test_a_file_outside_is_refused_and_nothing_is_made(pod: Pod, name: str) -> None:
    with pytest.raises(ConfigurationError, match="names are relative to the directory"):
        pod.private_directory("/opt", files={name: "text"})
    assert pod.check_output(["ls", "/opt"]).split() == sorted(os.listdir("/opt"))


def test_a_directory_that_could_not_be_filled_is_taken_back(pod: Pod) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        pod.private_directory("/opt", files={"a/b": "text", "a": "text"})
    assert pod.check_output(["ls", "/opt"]).split() == sorted(os.listdir("/opt"))
    assert os.listdir(pod.private_directory("/opt", files={"a": "text"})) == ["a"]


def test_a_program_without_the_view_sees_the_hosts(pod: Pod) -> None:
    pod.private_directory("/opt", files={"file": "text"})
    assert pod.check_output(["ls", "/opt"], view=False).split() == sorted(os.listdir("/opt"))


def test_it_ends_with_the_pod(cluster: Cluster, pod: Pod) -> None:
    place = pod.private_directory("/opt")
    cluster.remove_pod(pod)
    assert not place.exists()
    with pytest.raises(ClosedError):
        pod.private_directory("/srv")
