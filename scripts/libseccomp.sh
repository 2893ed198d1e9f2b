#!/bin/sh
# Installs Debian's libseccomp2, which the jail for submitted code needs, where that can be done without asking.
# Where it can't, the tests that need a jail fail and say so.
set -u

ldconfig -p 2>/dev/null | grep -q libseccomp.so.2 && exit 0
command -v apt-get >/dev/null 2>&1 || { echo "No apt-get here: install libseccomp 2.5 or newer for the grading tests."; exit 0; }

if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "libseccomp2 is not installed and this is not root. For the grading tests: sudo apt install libseccomp2"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends libseccomp2 >/dev/null ||
    echo "apt-get could not install libseccomp2."
exit 0
