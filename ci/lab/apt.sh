# Sourced: apt with lists and a cache of our own, so that the machine's stay as they are. The mirror is the one that the
# machine itself uses; suites that it does not have (backports, and trixie's for the kernel and rust-src) are asked there.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' \
    | awk '$2 == "bookworm" { print $1; exit }')
[ -n "$mirror" ] || { echo "this machine's apt sources have no bookworm" >&2; exit 1; }

# ours NAME SUITE...: prepares the lists NAME.
ours() {
    local name=$1 suite
    shift
    mkdir -p "$LAB/apt/$name/lists/partial" "$LAB/apt/cache/archives/partial"
    for suite in "$@"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$LAB/apt/$name/sources.list.new"
    if ! cmp -s "$LAB/apt/$name/sources.list.new" "$LAB/apt/$name/sources.list"; then
        rm -f "$LAB/apt/$name/fresh"
        mv "$LAB/apt/$name/sources.list.new" "$LAB/apt/$name/sources.list"
    fi
}

# from NAME apt-get|apt-cache ARGUMENTS...: that command on the lists NAME, fetched at their first use.
from() {
    local name=$1 command=$2
    shift 2
    local options=(
        -o "Dir::Etc::sourcelist=$LAB/apt/$name/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::Lists=$LAB/apt/$name/lists" -o "Dir::Cache=$LAB/apt/cache"
        -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    )
    [ "$name" = native ] || options+=(-o APT::Architectures=amd64,arm64)
    if [ ! -e "$LAB/apt/$name/fresh" ]; then
        apt-get "${options[@]}" -q update
        touch "$LAB/apt/$name/fresh"
    fi
    DEBIAN_FRONTEND=noninteractive "$command" "${options[@]}" "$@"
}
ours native bookworm bookworm-updates bookworm-backports
ours foreign bookworm
ours trixie trixie-backports
