"""Lists parameters of URLs that only other libraries know, such as Prisma, JDBC and node-postgres. Pure.

Clouds and frameworks print URLs with them. A server refuses them at each connection, and a pooler can drop
them.
"""

_SCHEMA = "use search_path"
_TLS = "use sslmode, such as sslmode=require"

_REFUSED = {
    _SCHEMA: "schema currentSchema schema_search_path",
    _TLS: """
    ssl ssl_require sslaccept sslfactory sslfactoryarg sslhostnameverifier sslidentity sslpasswordcallback
    """,
    "use target_session_attrs": "targetServerType",
    "use sslnegotiation": "direct_tls",
    "leave it out": "encoding readOnly readOnlyMode",
}

FOREIGN = {name.lower(): instead for instead, names in _REFUSED.items() for name in names.split()}
"""Parameters that request other rows, other security or other servers, in lower case: what to do instead."""

_POOLS = """
advisory_locks checkout_timeout command_timeout conn_health_checks conn_max_age connection_limit
connectionTimeoutMillis hostRecheckSeconds idle_timeout idleTimeoutMillis loginTimeout max max_overflow min
pool pool_health_check_period pool_max_conn_idle_time pool_max_conn_lifetime pool_max_conn_lifetime_jitter
pool_max_conns pool_min_conns pool_min_idle_conns pool_pre_ping pool_recycle pool_size pool_timeout
query_timeout reaping_frequency reconnect socket_timeout socketTimeout tcpNoDelay timeout
"""

_POOLERS = """
binaryTransfer binary_parameters default_query_exec_mode description_cache_capacity
max_cached_statement_lifetime pgbouncer prefer_simple_protocol prepare prepareThreshold
preparedStatementCacheQueries preparedStatementCacheSizeMiB prepared_statement_cache_size
prepared_statements statement_cache_capacity statement_cache_mode statement_cache_size supa workaround
"""

_CLIENTS = """
adapter assumeMinServerVersion async_fallback autosave defaultRowFetchSize min_messages reWriteBatchedInserts
stringtype
"""

IGNORED = frozenset(name.lower() for names in (_POOLS, _POOLERS, _CLIENTS) for name in names.split())
"""Parameters that change nothing here, in lower case.

The service has its own pools and time-outs, and works behind poolers without such parameters.

No parameter of these lists is a setting that a client can set.
"""
