"""Lists parameters of URLs that only other libraries know, such as Prisma, JDBC and node-postgres. Pure.

Clouds and frameworks print URLs with them. The server refuses them at each connection.
"""

_OWN = "leave it out, because the service has its own pools and time-outs"
_SCHEMA = "use search_path"
_TLS = "use sslmode, such as sslmode=require"
_UNPREPARED = "leave it out, because the service works behind poolers without it"

_NAMES = {
    _SCHEMA: "schema currentSchema schema_search_path",
    _TLS: """
    ssl ssl_require sslaccept sslfactory sslfactoryarg sslhostnameverifier sslidentity sslpasswordcallback
    """,
    _UNPREPARED: """
    binaryTransfer binary_parameters default_query_exec_mode description_cache_capacity
    max_cached_statement_lifetime prefer_simple_protocol prepare prepareThreshold
    preparedStatementCacheQueries preparedStatementCacheSizeMiB
    prepared_statement_cache_size prepared_statements
    statement_cache_capacity statement_cache_mode statement_cache_size
    """,
    "use target_session_attrs": "targetServerType hostRecheckSeconds",
    _OWN: """
    advisory_locks checkout_timeout command_timeout conn_health_checks conn_max_age connection_limit
    connectionTimeoutMillis idle_timeout idleTimeoutMillis loginTimeout max max_overflow min pool
    pool_health_check_period pool_max_conn_idle_time pool_max_conn_lifetime pool_max_conn_lifetime_jitter
    pool_max_conns pool_min_conns pool_min_idle_conns pool_pre_ping pool_recycle pool_size pool_timeout
    query_timeout reaping_frequency socket_timeout socketTimeout timeout
    """,
    "leave it out": """
    adapter assumeMinServerVersion async_fallback autosave defaultRowFetchSize direct_tls encoding
    min_messages readOnly readOnlyMode reWriteBatchedInserts reconnect stringtype supa tcpNoDelay workaround
    """,
}

FOREIGN = {name.lower(): instead for instead, names in _NAMES.items() for name in names.split()}
"""By name, in lower case: what to do instead. None of them is a setting that a client can set."""
