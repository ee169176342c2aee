#!/bin/sh
# Brings the jars of Apache Kafka (pom.xml) from Maven Central into var/kafka/libs; does nothing where they are.
# Java and Maven are installed from Debian where they are missing and this user may install packages.
set -u
cd "$(dirname "$0")/../.."
pom=deploy/kafka/pom.xml
folder=var/kafka/libs
java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
fresh=var/kafka/.libs.$$

fail() {
    echo "make kafka: $1" >&2
    rm -rf "$fresh"
    exit 1
}

java_release() {
    command -v "$java" >/dev/null 2>&1 && "$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p'
}

missing=""
release=$(java_release)
[ "${release:-0}" -ge 17 ] || missing="openjdk-17-jre-headless"
# The folder holds the pom that its jars are of.
here=""
cmp -s "$pom" "$folder/pom.xml" && here=yes
[ -n "$here" ] || command -v mvn >/dev/null 2>&1 || missing="$missing maven"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing for Kafka:" $missing "…"
        mkdir -p var/kafka
        # Newer Debian releases have no Java 17, but a newer one as the default.
        (export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        for package in $missing; do
            apt-get install -y -qq --no-install-recommends "$package" \
                || { [ "$package" != maven ] && apt-get install -y -qq --no-install-recommends default-jre-headless; }
        done) >var/kafka/apt.log 2>&1
    fi
    release=$(java_release)
    [ "${release:-0}" -ge 17 ] || fail "Java 17 or newer is missing; install it: apt-get install openjdk-17-jre-headless"
    [ -n "$here" ] || command -v mvn >/dev/null 2>&1 || fail "Maven is missing; install it: apt-get install maven"
fi
if [ -n "$here" ]; then
    echo "Apache Kafka is in $folder."
    exit 0
fi
mkdir -p "$fresh" || fail "$fresh cannot be made; check the rights of var/"
echo "Bringing Apache Kafka from Maven Central (once; 43 MB) …"
mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/$fresh" \
    >var/kafka/maven.log 2>&1 \
    || fail "Maven could not bring the jars; check the network and try again; var/kafka/maven.log says more"
cp "$pom" "$fresh/pom.xml"
rm -rf "$folder"
mv "$fresh" "$folder" || fail "$folder cannot be written; check the rights of var/"
echo "Apache Kafka is in $folder."
