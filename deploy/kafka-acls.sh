#!/bin/sh
# Prints the commands that let cartsync, the shop and an operator do what each of them has to do, and nothing more.
# Look at them, then run them as a principal that may alter the cluster:
#
#   BOOTSTRAP=kafka:9092 COMMAND_CONFIG=admin.properties deploy/kafka-acls.sh | sh -e
#
# What is granted and why: deploy/ACLS.md. The names are those of [kafka] in cartsync.toml.
set -eu

BOOTSTRAP=${BOOTSTRAP:?host:port of a broker}
KAFKA_ACLS=${KAFKA_ACLS:-kafka-acls.sh}
COMMAND_CONFIG=${COMMAND_CONFIG:-}
WORKER=${WORKER:-User:cartsync}
RECEIVER=${RECEIVER:-} # who runs `cartsync receive`; empty: nothing is granted
CONSOLE=${CONSOLE:-}   # who runs `cartsync console`; empty: nothing is granted
SHOP=${SHOP:-}         # who writes events; empty: nothing is granted
OPERATOR=${OPERATOR:-} # who runs `topics`, `status`, `orders list`, `order show`, `dlq list`, …; empty: nothing is granted
REPLAYER=${REPLAYER:-} # who runs `dlq mend` and `dlq replay`; empty: nothing is granted
GROUP_ID=${GROUP_ID:-cartsync}
TRANSACTIONAL_ID_PREFIX=${TRANSACTIONAL_ID_PREFIX:-cartsync}
EVENT_TOPIC=${EVENT_TOPIC:-orders.events}
STATE_TOPIC=${STATE_TOPIC:-cartsync.state}
DEAD_LETTER_TOPIC=${DEAD_LETTER_TOPIC:-cartsync.dlq}
RESULTS_TOPIC=${RESULTS_TOPIC-cartsync.results} # empty: there is none
HISTORY_TOPIC=${HISTORY_TOPIC-$STATE_TOPIC.history} # empty: there is none
READER=${READER:-}                              # who reads results; empty: nothing is granted
DISBURSEMENTS=${DISBURSEMENTS:-}                # not empty: an account has them, and they become events
BY_EVENTS=${BY_EVENTS:-}                        # not empty: operators act by events ([callbacks] record_secrets)

quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

# allow PRINCIPAL RESOURCE NAME PATTERN OPERATION…
allow() {
    printf '%s --bootstrap-server %s' "$(quoted "$KAFKA_ACLS")" "$(quoted "$BOOTSTRAP")"
    if [ -n "$COMMAND_CONFIG" ]; then printf ' --command-config %s' "$(quoted "$COMMAND_CONFIG")"; fi
    printf ' --add --allow-principal %s %s %s --resource-pattern-type %s' "$(quoted "$1")" "$2" "$(quoted "$3")" "$4"
    shift 4
    for operation in "$@"; do printf ' --operation %s' "$operation"; done
    printf '\n'
}

allow "$WORKER" --topic "$EVENT_TOPIC" literal Read DescribeConfigs
if [ -n "$DISBURSEMENTS$BY_EVENTS" ]; then
    allow "$WORKER" --topic "$EVENT_TOPIC" literal Write
fi
allow "$WORKER" --group "$GROUP_ID" literal Read
allow "$WORKER" --topic "$STATE_TOPIC" literal Read Write DescribeConfigs
allow "$WORKER" --topic "$DEAD_LETTER_TOPIC" literal Write DescribeConfigs
if [ -n "$RESULTS_TOPIC" ]; then
    allow "$WORKER" --topic "$RESULTS_TOPIC" literal Write DescribeConfigs
fi
if [ -n "$HISTORY_TOPIC" ]; then
    allow "$WORKER" --topic "$HISTORY_TOPIC" literal Write DescribeConfigs
fi
allow "$WORKER" --transactional-id "$TRANSACTIONAL_ID_PREFIX.$EVENT_TOPIC." prefixed Write Describe

if [ -n "$RECEIVER" ]; then
    allow "$RECEIVER" --topic "$EVENT_TOPIC" literal Write
fi

if [ -n "$CONSOLE" ]; then
    allow "$CONSOLE" --topic "$EVENT_TOPIC" literal Describe
    if [ -n "$BY_EVENTS" ]; then
        allow "$CONSOLE" --topic "$EVENT_TOPIC" literal Write
    fi
    allow "$CONSOLE" --topic "$STATE_TOPIC" literal Read
    allow "$CONSOLE" --topic "$DEAD_LETTER_TOPIC" literal Read
    if [ -n "$RESULTS_TOPIC" ]; then
        allow "$CONSOLE" --topic "$RESULTS_TOPIC" literal Read
    fi
    if [ -n "$HISTORY_TOPIC" ]; then
        allow "$CONSOLE" --topic "$HISTORY_TOPIC" literal Read
    fi
fi

if [ -n "$SHOP" ]; then
    allow "$SHOP" --topic "$EVENT_TOPIC" literal Write
fi

if [ -n "$READER" ] && [ -n "$RESULTS_TOPIC" ]; then
    allow "$READER" --topic "$RESULTS_TOPIC" literal Read
fi

if [ -n "$OPERATOR" ]; then
    allow "$OPERATOR" --group "$GROUP_ID" literal Describe
    allow "$OPERATOR" --topic "$EVENT_TOPIC" literal Create Read DescribeConfigs
    if [ -n "$BY_EVENTS" ]; then
        allow "$OPERATOR" --topic "$EVENT_TOPIC" literal Write
    fi
    allow "$OPERATOR" --topic "$STATE_TOPIC" literal Create Read DescribeConfigs
    allow "$OPERATOR" --topic "$DEAD_LETTER_TOPIC" literal Create Read DescribeConfigs
    if [ -n "$RESULTS_TOPIC" ]; then
        allow "$OPERATOR" --topic "$RESULTS_TOPIC" literal Create Read DescribeConfigs
    fi
    if [ -n "$HISTORY_TOPIC" ]; then
        allow "$OPERATOR" --topic "$HISTORY_TOPIC" literal Create Read DescribeConfigs
    fi
fi

if [ -n "$REPLAYER" ]; then
    allow "$REPLAYER" --topic "$EVENT_TOPIC" literal Write DescribeConfigs
    allow "$REPLAYER" --topic "$STATE_TOPIC" literal Read DescribeConfigs
    allow "$REPLAYER" --topic "$DEAD_LETTER_TOPIC" literal Read Write DescribeConfigs
    allow "$REPLAYER" --transactional-id "$TRANSACTIONAL_ID_PREFIX.$EVENT_TOPIC.letters." prefixed Write Describe
fi
