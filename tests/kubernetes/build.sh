#!/bin/bash
# Builds a real Kubernetes API server and controller manager (1.20.2) from Debian's source into build/kubernetes/bin,
# beside Debian's etcd. Three minutes on two idle cores, fifteen on busy ones, once. Needs Debian 12 with its mirror in
# reach; neither root nor changes to the system: packages are unpacked below build/kubernetes, not installed.
set -euo pipefail

ROOT=$(realpath -m "${1:-build/kubernetes}")
TOOLS=$ROOT/tools
GOPATH=$ROOT/go
TREE=$GOPATH/src/k8s.io/kubernetes
SUITE=bookworm

lists=(-o "Dir::Etc::sourcelist=$ROOT/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$ROOT/lists"
  -o "Dir::Cache=$ROOT/cache" -o APT::Sandbox::User=root)

fetch() {
  mkdir -p "$ROOT"/{lists,cache,packages,bin} "$TOOLS"
  for type in deb deb-src; do
    echo "$type [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $SUITE main"
  done > "$ROOT/sources.list"
  apt-get "${lists[@]}" update -qq
  cd "$ROOT/packages"
  apt-get "${lists[@]}" download -qq golang-1.19-go golang-1.19-src etcd-server golang-github-modern-go-reflect2-dev
  for package in *.deb; do dpkg -x "$package" "$TOOLS"; done
  apt-get "${lists[@]}" source -qq --download-only kubernetes
  cp "$TOOLS/usr/bin/etcd" "$ROOT/bin/"
}

unpack() {
  rm -rf "$TREE"
  mkdir -p "$(dirname "$TREE")"
  dpkg-source --no-check -x "$ROOT"/packages/kubernetes_*.dsc "$TREE"
  # The reflect2 in the source iterates over maps as Go did before 1.18; built with 1.19 it ends the API server (SIGSEGV).
  rm -rf "$TREE"/vendor/github.com/modern-go/reflect2/*.{go,s}
  cp "$TOOLS"/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$TREE/vendor/github.com/modern-go/reflect2/"
  rm -f "$TREE"/vendor/github.com/modern-go/reflect2/*_test.go
}

# The source package lacks one generated file, which the API server is compiled with.
openapi() {
  cd "$TREE"
  go build -o "$ROOT/bin/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  local inputs
  inputs=$(grep -rl --include=*.go '^// +k8s:openapi-gen=' pkg staging/src vendor/k8s.io/kube-openapi vendor/k8s.io/api \
    vendor/k8s.io/apimachinery 2>/dev/null | grep -v _test.go | xargs -n1 dirname | sed 's|^staging/src|k8s.io/kubernetes/vendor|; t
      s|^|k8s.io/kubernetes/|' | sort -u | paste -sd,)
  "$ROOT/bin/openapi-gen" -h hack/boilerplate/boilerplate.generatego.txt --output-file-base zz_generated.openapi \
    -p k8s.io/kubernetes/pkg/generated/openapi -r "$ROOT/openapi-violations.txt" -i "$inputs"
}

compile() {
  cd "$TREE"
  for program in kube-apiserver kube-controller-manager; do
    go build -o "$ROOT/bin/$program" "./cmd/$program"
  done
}

export GOPATH GO111MODULE=off CGO_ENABLED=0 GOCACHE=$ROOT/gocache GOFLAGS=
export GOROOT=$TOOLS/usr/lib/go-1.19 PATH=$TOOLS/usr/lib/go-1.19/bin:$PATH
test -e "$TOOLS/usr/lib/go-1.19" || fetch
test -e "$TREE/cmd" || unpack
test -e "$TREE/pkg/generated/openapi/zz_generated.openapi.go" || openapi
compile
rm -rf "$ROOT"/{lists,cache,gocache,go,packages,tools,sources.list,openapi-violations.txt,bin/openapi-gen}
