#!/usr/bin/env bash
# Writes the life of one order to the event topic: confirmed, and half of it shipped. Needs kcat.
#
#   deploy/examples/produce.sh [BOOTSTRAP] [ACCOUNT/REFERENCE] [TOPIC]
#
# With Kafka's own tools instead: kafka-console-producer.sh --bootstrap-server … --topic … --property parse.key=true
# reads the same lines (key, tab, value). partitioner=murmur2_random is Java's choice of partition; kcat's own default
# is another one, and all producers of a shop must choose alike, or an order ends up in two partitions.
set -euo pipefail

bootstrap=${1:-localhost:9092}
subject=${2:-acme/A1}
topic=${3:-orders.events}

event() { # type, data
    printf '%s\t{"specversion":"1.0","id":"%s","source":"/examples/produce","type":"%s","time":"%s","subject":"%s","data":%s}\n' \
        "$subject" "$(cat /proc/sys/kernel/random/uuid)" "$1" "$(date -u +%Y-%m-%dT%H:%M:%S.%6NZ)" "$subject" "$2"
}

{
    event order.confirmed '{"currency":"EUR","lines":[{"reference":"shirt","name":"Shirt","quantity":2,"unit_price_minor":1250,"total_minor":2500}]}'
    event order.items_shipped '{"shipment_id":"s1","lines":[{"line_id":"shirt","quantity":1}]}'
} | kcat -P -b "$bootstrap" -t "$topic" -K '	' -X partitioner=murmur2_random -X acks=all -X enable.idempotence=true

echo "wrote 2 events of $subject to $topic"
