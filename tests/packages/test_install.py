"""The Debian package: its installation, upgrade and removal in clean Debian systems."""

import os
import re
import shutil
import subprocess

import pytest

from machine import WORK, Machine, archive, unpacked, until

PACKAGE = os.environ["UPSLOT_DEB"]
SUITES = ("bookworm", "trixie")

APT = ("apt-get", "-y", "-q", "-o", "APT::Sandbox::User=root")


def newer(suffix, comment):
    """The same package as a newer version with another configuration."""
    version = subprocess.run(["dpkg-deb", "-f", PACKAGE, "Version"], check=True, stdout=subprocess.PIPE, text=True)
    version = version.stdout.strip() + suffix
    folder = WORK / f"newer-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-R", PACKAGE, folder], check=True)
    control = folder / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    for path in ("etc/upslot/config.yml", "usr/share/upslot/config.yml"):
        with open(folder / path, "a") as config:
            config.write(f"# {comment}\n")
    path = WORK / f"upslot_{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder, path], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder)
    return path


@pytest.mark.parametrize("suite", SUITES)
def test_without_a_running_systemd(suite):
    """As in the build of a container image: in a minimal system, with the dependencies from the network."""
    with unpacked(archive(suite, included="")) as root:
        shutil.copy(PACKAGE, root / "srv/upslot.deb")
        run = ["unshare", "-m", "--propagation", "private", "chroot", root, "sh", "-euc"]

        def chroot(script):
            script = f"export DEBIAN_FRONTEND=noninteractive; mount -t proc none /proc; {script}"
            ran = subprocess.run([*run, script], capture_output=True, text=True)
            assert ran.returncode == 0, f"{script}: {ran.stdout} {ran.stderr}"
            return ran.stdout + ran.stderr

        said = chroot(f"{' '.join(APT)} update; {' '.join(APT)} install --no-install-recommends /srv/upslot.deb")
        assert "starts after you have edited /etc/upslot/config.yml" in said, said
        assert chroot("stat -c '%A %U:%G' /var/lib/upslot /etc/upslot/config.yml").split() == [
            "drwxr-x---", "upslot:upslot", "-rw-r-----", "root:upslot"]
        assert chroot("upslot --version").startswith("upslot ")
        chroot(f"{' '.join(APT)} purge upslot; ! test -e /var/lib/upslot; ! test -e /etc/upslot")


@pytest.mark.parametrize("suite", SUITES)
def test_life_of_an_installation(suite):
    with unpacked(archive(suite)) as root:
        shutil.copy(PACKAGE, root / "srv/1.deb")
        shutil.copy(newer("+2", "two"), root / "srv/2.deb")
        shutil.copy(newer("+3", "three"), root / "srv/3.deb")
        machine = Machine(root)
        machine.boot()
        try:
            check_first_installation(machine)
            check_documentation(machine)
            check_completions(machine)
            check_upgrade_before_configuration(machine)
            configure(machine)
            links = check_service(machine)
            machine.shut_down()
            machine.boot()
            assert machine.run("curl", "-sf", links[1]).stdout == "hello", "after the next boot"
            check_upgrade(machine, links[1])
            check_removal(machine, links[1])
        finally:
            machine.shut_down()


def modes(machine, *paths):
    return machine.run("stat", "-c", "%A %U:%G", *paths).stdout.splitlines()


def check_first_installation(machine):
    said = machine.run(*APT, "install", "/srv/1.deb")
    assert "starts after you have edited /etc/upslot/config.yml" in said.stdout + said.stderr, said
    assert modes(machine, "/etc/upslot/config.yml", "/etc/upslot", "/var/lib/upslot", "/usr/bin/upslot") == [
        "-rw-r----- root:upslot", "drwxr-xr-x root:root", "drwxr-x--- upslot:upslot", "-rwxr-xr-x root:root"]
    user = machine.run("getent", "passwd", "upslot").stdout.strip().split(":")
    assert user[5:] == ["/var/lib/upslot", "/usr/sbin/nologin"]
    assert machine.run("dpkg", "-V", "upslot").stdout == ""
    # Enabled, and skipped with a reason instead of failing.
    assert machine.run("systemctl", "is-enabled", "upslot").stdout == "enabled\n"
    machine.run("systemctl", "start", "upslot")
    assert (machine.show("ActiveState"), machine.show("Result")) == ("inactive", "exec-condition")
    journal = machine.run("journalctl", "-u", "upslot", "--no-pager").stdout
    assert "starts after you have edited /etc/upslot/config.yml" in journal, journal
    # The error is the placeholder alone.
    checked = machine.run("upslot", "--check-config", check=False)
    assert checked.returncode == 1 and len(checked.stderr.splitlines()) == 1, checked
    assert "component_secret" in checked.stderr, checked


def check_documentation(machine):
    for page, words in (("upslot", "--check-config"), ("upslot.yml", "max_file_size")):
        assert words in machine.shell(f"man {page} | col -b"), page
        path = machine.run("man", "-w", page).stdout.strip()
        machine.shell(f"zcat {path} > /tmp/page; mandoc -T lint -W style /tmp/page; man --warnings -l /tmp/page > /dev/null")
    machine.run("logrotate", "-d", "/etc/logrotate.d/upslot")
    copyright_file = machine.run("cat", "/usr/share/doc/upslot/copyright").stdout
    assert "2026 The upslot authors" in copyright_file


def check_completions(machine):
    # As an interactive bash does it at the first Tab.
    found = machine.run("bash", "-c", """
        source /usr/share/bash-completion/bash_completion
        { _comp_load upslot || _completion_loader upslot; } 2> /dev/null
        complete -p upslot
        COMP_WORDS=(upslot list --a) COMP_CWORD=2; _upslot; echo "${COMPREPLY[@]}"
    """).stdout
    assert found == "complete -F _upslot upslot\n--all\n", found
    found = machine.run("zsh", "-fc", r"""
        zmodload zsh/zpty
        zpty -b shell zsh -f -i
        expect() {
            local out= part
            repeat 100; do
                zpty -rt shell part 2> /dev/null && out+=$part
                [[ $out != *$1* ]] || { print found; return }
                sleep 0.1
            done
            print -r "no $1: ${(q)out}"
        }
        zpty -w shell 'autoload -Uz compinit; compinit -u -D; PROMPT='
        zpty -w -n shell $'upslot expl\t'
        expect explain
        zpty -w -n shell $'\Cuupslot help conf\t'
        expect 'help config'
        zpty -d shell
    """).stdout
    assert found == "found\nfound\n", found
    found = machine.run("fish", "-c", "complete -C 'upslot ex'; complete -C 'upslot list --a'").stdout
    assert [line.split("\t")[0] for line in found.splitlines()] == ["explain", "--all"], found


def check_upgrade_before_configuration(machine):
    """An unedited configuration is replaced, and keeps its permissions."""
    machine.run(*APT, "install", "/srv/2.deb")
    assert machine.run("tail", "-n", "1", "/etc/upslot/config.yml").stdout == "# two\n"
    assert modes(machine, "/etc/upslot/config.yml") == ["-rw-r----- root:upslot"]
    assert machine.show("ActiveState") == "inactive"


def configure(machine):
    machine.run("sed", "-i", "s/change me/twelve blue cats/; s#https://upload.example.org/#http://127.0.0.1:8080/#",
                "/etc/upslot/config.yml")
    machine.shell("echo 'api: {port: 8081}' >> /etc/upslot/config.yml")
    machine.run("upslot", "--check-config")
    machine.run("systemctl", "restart", "upslot")


def check_service(machine):
    """Uploads a file; returns the links of its slot."""
    assert machine.show("ActiveState") == "active"
    process = machine.run("cat", f"/proc/{machine.show('MainPID')}/status").stdout
    number = machine.run("id", "-u", "upslot").stdout.strip()
    fields = dict(line.split(":", 1) for line in process.splitlines())
    assert fields["Uid"].split() == [number] * 4
    assert [fields[name].strip() for name in ("CapEff", "NoNewPrivs", "Seccomp")] == ["0" * 16, "1", "2"]
    slot = "http://127.0.0.1:8081/slot/?name=a.txt&size=5&jid=romeo@example.org"
    links = machine.run("curl", "-sf", slot).stdout.split()
    machine.run("curl", "-sf", "-T", "-", "-H", "Content-Length: 5", "-H", "Transfer-Encoding:", links[0], stdin="hello")
    assert machine.run("curl", "-sf", links[1]).stdout == "hello"
    files = machine.shell("find /var/lib/upslot -type f -name a.txt -printf '%M %u:%g\\n'")
    assert files == "-rw-r----- upslot:upslot"
    machine.run("systemctl", "reload", "upslot")
    until(lambda: reloads(machine) == 1, "reload")
    # A log file is rotated, and the service reopens it.
    machine.shell("install -d -o upslot -g upslot /var/log/upslot; echo line > /var/log/upslot/upslot.log; "
                  "chown upslot:upslot /var/log/upslot/upslot.log; logrotate -f /etc/logrotate.d/upslot")
    assert machine.run("cat", "/var/log/upslot/upslot.log.1").stdout == "line\n"
    until(lambda: reloads(machine) == 2, "reload by logrotate")
    return links


def reloads(machine):
    return machine.run("journalctl", "-u", "upslot", "--no-pager").stdout.count("config reloaded")


def check_upgrade(machine, link):
    """An edited configuration is kept, and the new version runs."""
    before = machine.run("cat", "/etc/upslot/config.yml").stdout
    pid = machine.show("MainPID")
    machine.run(*APT, "-o", "Dpkg::Options::=--force-confold", "install", "/srv/3.deb")
    assert machine.run("cat", "/etc/upslot/config.yml").stdout == before
    assert machine.run("tail", "-n", "1", "/etc/upslot/config.yml.dpkg-dist").stdout == "# three\n"
    assert modes(machine, "/etc/upslot/config.yml") == ["-rw-r----- root:upslot"]
    assert machine.show("ActiveState") == "active" and machine.show("MainPID") != pid
    assert machine.run("curl", "-sf", link).stdout == "hello"


def check_removal(machine, link):
    machine.run(*APT, "remove", "upslot")
    assert machine.run("systemctl", "is-active", "upslot", check=False).stdout == "inactive\n"
    assert not machine.shell("pgrep upslot || true")
    assert modes(machine, "/etc/upslot/config.yml") == ["-rw-r----- root:upslot"]
    # Installed again, it continues where it was.
    machine.run(*APT, "install", "/srv/3.deb")
    assert machine.run("curl", "-sf", link).stdout == "hello"
    said = machine.run(*APT, "purge", "upslot")
    assert "stored files remain in /var/lib/upslot" in said.stderr + said.stdout, said
    assert machine.shell("find /var/lib/upslot -type f -name a.txt") != ""
    left = machine.shell("find /etc /usr /var/log -iname '*upslot*' | grep -v /var/log/journal || true")
    assert left == "", left
    machine.run("getent", "passwd", "upslot")
    # Without stored files nothing remains.
    machine.run(*APT, "install", "/srv/1.deb")
    machine.shell("find /var/lib/upslot -type f -name a.txt -delete")
    machine.run(*APT, "purge", "upslot")
    machine.shell("! test -e /var/lib/upslot; ! test -e /etc/upslot")
