#!/bin/sh
# Creates one database and one role per service; no other role may connect. The image runs this once, on a new volume.
set -eu
for service in intake workflow idlookup notify; do
  psql -v ON_ERROR_STOP=1 -v service="$service" -v password="$HOSO_DB_PASSWORD" -U postgres <<'SQL'
create role :"service" login password :'password';
create database :"service" owner :"service";
revoke connect on database :"service" from public;
SQL
done
