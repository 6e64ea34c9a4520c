"""The console: what became of every order, for people, and the same as JSON.

`rows` makes a row of a record, `index` keeps the rows in SQLite, `follower` feeds it from Kafka, `queries` asks it.
`detail` and `letters` show one record, read from Kafka when it is asked for: the index holds no personal data. `api`
has the answers, `openapi` describes them, `pages` makes HTML of them, `server` decides who may ask and serves both.
"""
