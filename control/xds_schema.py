"""Envoy's messages, as far as Fairlead writes and reads them: each with its fields' numbers and types, and enumerations.

A line is a message (`envoy.` is left out before its name) and `FIELD=NUMBER:TYPE`; `*` before a type: repeated, `map:`:
a map from text; `uint?` and the like: a wrapper of google.protobuf. The numbers are those of Envoy 1.40's API
(data-plane API v3), which never change. A field that stands here may be given as JSON names it, with the names of the
.proto file. Long because it is a table.
"""

# ruff: noqa: E501 - a table
from __future__ import annotations

MESSAGES = """
config.accesslog.v3.AccessLog name=1:string typed_config=4:any
config.cluster.v3.CircuitBreakers thresholds=1:*config.cluster.v3.CircuitBreakers.Thresholds
config.cluster.v3.CircuitBreakers.Thresholds priority=1:config.core.v3.RoutingPriority max_connections=2:uint?
  max_pending_requests=3:uint? max_requests=4:uint? max_retries=5:uint?
  retry_budget=8:config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget
config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget budget_percent=1:type.v3.Percent
  min_retry_concurrency=2:uint?
config.cluster.v3.Cluster name=1:string alt_stat_name=28:string type=2:config.cluster.v3.Cluster.DiscoveryType
  cluster_type=38:config.cluster.v3.Cluster.CustomClusterType
  eds_cluster_config=3:config.cluster.v3.Cluster.EdsClusterConfig connect_timeout=4:duration
  lb_policy=6:config.cluster.v3.Cluster.LbPolicy load_assignment=33:config.endpoint.v3.ClusterLoadAssignment
  circuit_breakers=10:config.cluster.v3.CircuitBreakers outlier_detection=19:config.cluster.v3.OutlierDetection
  dns_lookup_family=17:config.cluster.v3.Cluster.DnsLookupFamily
  ring_hash_lb_config=23:config.cluster.v3.Cluster.RingHashLbConfig
  maglev_lb_config=52:config.cluster.v3.Cluster.MaglevLbConfig
  least_request_lb_config=37:config.cluster.v3.Cluster.LeastRequestLbConfig
  round_robin_lb_config=56:config.cluster.v3.Cluster.RoundRobinLbConfig
  original_dst_lb_config=34:config.cluster.v3.Cluster.OriginalDstLbConfig
  common_lb_config=27:config.cluster.v3.Cluster.CommonLbConfig transport_socket=24:config.core.v3.TransportSocket
  transport_socket_matches=43:*config.cluster.v3.Cluster.TransportSocketMatch
  upstream_connection_options=30:config.cluster.v3.UpstreamConnectionOptions
  typed_extension_protocol_options=36:map:any respect_dns_ttl=39:bool metadata=25:config.core.v3.Metadata
config.cluster.v3.Cluster.CommonLbConfig healthy_panic_threshold=1:type.v3.Percent
  locality_weighted_lb_config=3:config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig
config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig
config.cluster.v3.Cluster.CustomClusterType name=1:string typed_config=2:any
config.cluster.v3.Cluster.EdsClusterConfig eds_config=1:config.core.v3.ConfigSource service_name=2:string
config.cluster.v3.Cluster.LeastRequestLbConfig slow_start_config=3:config.cluster.v3.Cluster.SlowStartConfig
config.cluster.v3.Cluster.MaglevLbConfig table_size=1:uint?
config.cluster.v3.Cluster.OriginalDstLbConfig use_http_header=1:bool
config.cluster.v3.Cluster.RingHashLbConfig minimum_ring_size=1:uint?
config.cluster.v3.Cluster.RoundRobinLbConfig slow_start_config=1:config.cluster.v3.Cluster.SlowStartConfig
config.cluster.v3.Cluster.SlowStartConfig slow_start_window=1:duration aggression=2:config.core.v3.RuntimeDouble
  min_weight_percent=3:type.v3.Percent
config.cluster.v3.Cluster.TransportSocketMatch name=1:string match=2:struct
  transport_socket=3:config.core.v3.TransportSocket
config.cluster.v3.OutlierDetection consecutive_5xx=1:uint? interval=2:duration base_ejection_time=3:duration
  max_ejection_percent=4:uint? enforcing_consecutive_5xx=5:uint? enforcing_success_rate=6:uint?
  success_rate_minimum_hosts=7:uint? success_rate_request_volume=8:uint? success_rate_stdev_factor=9:uint?
  consecutive_gateway_failure=10:uint? enforcing_consecutive_gateway_failure=11:uint?
  split_external_local_origin_errors=12:bool consecutive_local_origin_failure=13:uint?
  enforcing_consecutive_local_origin_failure=14:uint? enforcing_local_origin_success_rate=15:uint?
config.cluster.v3.UpstreamConnectionOptions tcp_keepalive=1:config.core.v3.TcpKeepalive
config.common.mutation_rules.v3.HeaderMutation remove=1:string
  remove_on_match=3:config.common.mutation_rules.v3.HeaderMutation.RemoveOnMatch
config.common.mutation_rules.v3.HeaderMutation.RemoveOnMatch key_matcher=1:type.matcher.v3.StringMatcher
config.core.v3.Address socket_address=1:config.core.v3.SocketAddress pipe=2:config.core.v3.Pipe
config.core.v3.AggregatedConfigSource
config.core.v3.CidrRange address_prefix=1:string prefix_len=2:uint?
config.core.v3.ConfigSource path_config_source=8:config.core.v3.PathConfigSource
  ads=3:config.core.v3.AggregatedConfigSource self=5:config.core.v3.SelfConfigSource initial_fetch_timeout=4:duration
  resource_api_version=6:config.core.v3.ApiVersion
config.core.v3.DataSource filename=1:string inline_bytes=2:bytes inline_string=3:string
config.core.v3.HeaderValue key=1:string value=2:string
config.core.v3.HeaderValueOption header=1:config.core.v3.HeaderValue
  append_action=3:config.core.v3.HeaderValueOption.HeaderAppendAction keep_empty_value=4:bool
config.core.v3.Http1ProtocolOptions accept_http_10=2:bool
config.core.v3.Http2ProtocolOptions max_concurrent_streams=2:uint?
  connection_keepalive=15:config.core.v3.KeepaliveSettings
config.core.v3.HttpProtocolOptions idle_timeout=1:duration max_connection_duration=3:duration
  max_requests_per_connection=6:uint?
config.core.v3.KeepaliveSettings interval=1:duration timeout=2:duration
config.core.v3.Locality region=1:string zone=2:string sub_zone=3:string
config.core.v3.Metadata filter_metadata=1:map:struct
config.core.v3.Node id=1:string cluster=2:string metadata=3:struct locality=4:config.core.v3.Locality
  user_agent_name=6:string user_agent_version=7:string
config.core.v3.PathConfigSource path=1:string watched_directory=2:config.core.v3.WatchedDirectory
config.core.v3.Pipe path=1:string
config.core.v3.ProxyProtocolConfig version=1:config.core.v3.ProxyProtocolConfig.Version
config.core.v3.RuntimeDouble default_value=1:double runtime_key=2:string
config.core.v3.RuntimeFractionalPercent default_value=1:type.v3.FractionalPercent
config.core.v3.SelfConfigSource
config.core.v3.SocketAddress protocol=1:config.core.v3.SocketAddress.Protocol address=2:string port_value=3:uint
config.core.v3.TcpKeepalive keepalive_probes=1:uint? keepalive_time=2:uint? keepalive_interval=3:uint?
config.core.v3.TransportSocket name=1:string typed_config=3:any
config.core.v3.TypedExtensionConfig name=1:string typed_config=2:any
config.core.v3.WatchedDirectory path=1:string
config.endpoint.v3.ClusterLoadAssignment cluster_name=1:string endpoints=2:*config.endpoint.v3.LocalityLbEndpoints
  policy=4:config.endpoint.v3.ClusterLoadAssignment.Policy
config.endpoint.v3.ClusterLoadAssignment.Policy overprovisioning_factor=3:uint?
config.endpoint.v3.Endpoint address=1:config.core.v3.Address hostname=3:string
config.endpoint.v3.LbEndpoint endpoint=1:config.endpoint.v3.Endpoint health_status=2:config.core.v3.HealthStatus
  metadata=3:config.core.v3.Metadata load_balancing_weight=4:uint?
config.endpoint.v3.LocalityLbEndpoints locality=1:config.core.v3.Locality
  lb_endpoints=2:*config.endpoint.v3.LbEndpoint load_balancing_weight=3:uint? priority=5:uint
config.listener.v3.ApiListener api_listener=1:any
config.listener.v3.Filter name=1:string typed_config=4:any
config.listener.v3.FilterChain filter_chain_match=1:config.listener.v3.FilterChainMatch
  filters=3:*config.listener.v3.Filter transport_socket=6:config.core.v3.TransportSocket name=7:string
config.listener.v3.FilterChainMatch destination_port=8:uint? prefix_ranges=3:*config.core.v3.CidrRange
  server_names=11:*string transport_protocol=9:string application_protocols=10:*string
config.listener.v3.Listener name=1:string address=2:config.core.v3.Address
  filter_chains=3:*config.listener.v3.FilterChain default_filter_chain=25:config.listener.v3.FilterChain
  listener_filters=9:*config.listener.v3.ListenerFilter api_listener=19:config.listener.v3.ApiListener
  traffic_direction=16:config.core.v3.TrafficDirection use_original_dst=4:bool? listener_filters_timeout=15:duration
  continue_on_listener_filters_timeout=17:bool bind_to_port=26:bool?
config.listener.v3.ListenerFilter name=1:string typed_config=3:any
config.rbac.v3.Permission and_rules=1:config.rbac.v3.Permission.Set or_rules=2:config.rbac.v3.Permission.Set
  any=3:bool header=4:config.route.v3.HeaderMatcher destination_ip=5:config.core.v3.CidrRange destination_port=6:uint
  not_rule=8:config.rbac.v3.Permission requested_server_name=9:type.matcher.v3.StringMatcher
  url_path=10:type.matcher.v3.PathMatcher metadata=7:type.matcher.v3.MetadataMatcher
config.rbac.v3.Permission.Set rules=1:*config.rbac.v3.Permission
config.rbac.v3.Policy permissions=1:*config.rbac.v3.Permission principals=2:*config.rbac.v3.Principal
config.rbac.v3.Principal and_ids=1:config.rbac.v3.Principal.Set or_ids=2:config.rbac.v3.Principal.Set any=3:bool
  authenticated=4:config.rbac.v3.Principal.Authenticated direct_remote_ip=10:config.core.v3.CidrRange
  remote_ip=11:config.core.v3.CidrRange header=6:config.route.v3.HeaderMatcher not_id=8:config.rbac.v3.Principal
  url_path=9:type.matcher.v3.PathMatcher metadata=7:type.matcher.v3.MetadataMatcher
config.rbac.v3.Principal.Authenticated principal_name=2:type.matcher.v3.StringMatcher
config.rbac.v3.Principal.Set ids=1:*config.rbac.v3.Principal
config.rbac.v3.RBAC action=1:config.rbac.v3.RBAC.Action policies=2:map:config.rbac.v3.Policy
config.route.v3.DirectResponseAction status=1:uint body=2:config.core.v3.DataSource
config.route.v3.HeaderMatcher name=1:string string_match=13:type.matcher.v3.StringMatcher present_match=7:bool
  invert_match=8:bool treat_missing_header_as_empty=14:bool
config.route.v3.NonForwardingAction
config.route.v3.QueryParameterMatcher name=1:string string_match=5:type.matcher.v3.StringMatcher present_match=6:bool
config.route.v3.RateLimit actions=3:*config.route.v3.RateLimit.Action
config.route.v3.RateLimit.Action header_value_match=6:config.route.v3.RateLimit.Action.HeaderValueMatch
config.route.v3.RateLimit.Action.HeaderValueMatch descriptor_value=1:string expect_match=2:bool?
  headers=3:*config.route.v3.HeaderMatcher
config.route.v3.RedirectAction https_redirect=4:bool scheme_redirect=7:string host_redirect=1:string
  port_redirect=8:uint path_redirect=2:string prefix_rewrite=5:string
  response_code=3:config.route.v3.RedirectAction.RedirectResponseCode strip_query=6:bool
config.route.v3.RetryPolicy retry_on=1:string num_retries=2:uint? per_try_timeout=3:duration
  retry_priority=4:config.route.v3.RetryPolicy.RetryPriority
  retry_host_predicate=5:*config.route.v3.RetryPolicy.RetryHostPredicate host_selection_retry_max_attempts=6:int
  retriable_status_codes=7:*uint retry_back_off=8:config.route.v3.RetryPolicy.RetryBackOff
config.route.v3.RetryPolicy.RetryBackOff base_interval=1:duration max_interval=2:duration
config.route.v3.RetryPolicy.RetryHostPredicate name=1:string typed_config=3:any
config.route.v3.RetryPolicy.RetryPriority name=1:string typed_config=3:any
config.route.v3.Route name=14:string match=1:config.route.v3.RouteMatch route=2:config.route.v3.RouteAction
  redirect=3:config.route.v3.RedirectAction direct_response=7:config.route.v3.DirectResponseAction
  request_headers_to_add=9:*config.core.v3.HeaderValueOption request_headers_to_remove=12:*string
  response_headers_to_add=10:*config.core.v3.HeaderValueOption response_headers_to_remove=11:*string
  typed_per_filter_config=13:map:any non_forwarding_action=18:config.route.v3.NonForwardingAction
config.route.v3.RouteAction cluster=1:string max_grpc_timeout=23:duration weighted_clusters=3:config.route.v3.WeightedCluster
  cluster_header=2:string cluster_not_found_response_code=20:config.route.v3.RouteAction.ClusterNotFoundResponseCode
  prefix_rewrite=5:string regex_rewrite=32:type.matcher.v3.RegexMatchAndSubstitute host_rewrite_literal=6:string
  timeout=8:duration max_stream_duration=36:config.route.v3.RouteAction.MaxStreamDuration
  retry_policy=9:config.route.v3.RetryPolicy
  request_mirror_policies=30:*config.route.v3.RouteAction.RequestMirrorPolicy
  hash_policy=15:*config.route.v3.RouteAction.HashPolicy
config.route.v3.RouteAction.HashPolicy header=1:config.route.v3.RouteAction.HashPolicy.Header
  cookie=2:config.route.v3.RouteAction.HashPolicy.Cookie
  connection_properties=3:config.route.v3.RouteAction.HashPolicy.ConnectionProperties
  query_parameter=5:config.route.v3.RouteAction.HashPolicy.QueryParameter
config.route.v3.RouteAction.HashPolicy.ConnectionProperties source_ip=1:bool
config.route.v3.RouteAction.HashPolicy.Cookie name=1:string ttl=2:duration path=3:string
config.route.v3.RouteAction.HashPolicy.Header header_name=1:string
config.route.v3.RouteAction.HashPolicy.QueryParameter name=1:string
config.route.v3.RouteAction.MaxStreamDuration max_stream_duration=1:duration grpc_timeout_header_max=2:duration
config.route.v3.RouteAction.RequestMirrorPolicy cluster=1:string
  runtime_fraction=3:config.core.v3.RuntimeFractionalPercent
config.route.v3.RouteConfiguration name=1:string virtual_hosts=2:*config.route.v3.VirtualHost
  validate_clusters=7:bool? request_headers_to_remove=8:*string max_direct_response_body_size_bytes=11:uint? ignore_port_in_host_matching=14:bool
config.route.v3.RouteMatch prefix=1:string path=2:string safe_regex=10:type.matcher.v3.RegexMatcher
  path_separated_prefix=14:string case_sensitive=4:bool? headers=6:*config.route.v3.HeaderMatcher
  query_parameters=7:*config.route.v3.QueryParameterMatcher
config.route.v3.VirtualHost name=1:string domains=2:*string routes=3:*config.route.v3.Route
  include_request_attempt_count=14:bool
config.route.v3.WeightedCluster clusters=1:*config.route.v3.WeightedCluster.ClusterWeight
config.route.v3.WeightedCluster.ClusterWeight name=1:string weight=2:uint?
  request_headers_to_add=4:*config.core.v3.HeaderValueOption request_headers_to_remove=9:*string
  response_headers_to_add=5:*config.core.v3.HeaderValueOption response_headers_to_remove=6:*string
  host_rewrite_literal=11:string
extensions.access_loggers.file.v3.FileAccessLog path=1:string
extensions.access_loggers.stream.v3.StdoutAccessLog
extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig
  dns_cache_config=1:extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig
extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig name=1:string
  dns_lookup_family=2:config.cluster.v3.Cluster.DnsLookupFamily
extensions.filters.common.fault.v3.FaultDelay fixed_delay=3:duration percentage=4:type.v3.FractionalPercent
extensions.common.ratelimit.v3.LocalRateLimitDescriptor
  entries=1:*extensions.common.ratelimit.v3.RateLimitDescriptor.Entry token_bucket=2:type.v3.TokenBucket
extensions.common.ratelimit.v3.RateLimitDescriptor.Entry key=1:string value=2:string
extensions.filters.http.cors.v3.Cors
extensions.filters.http.cors.v3.CorsPolicy allow_origin_string_match=1:*type.matcher.v3.StringMatcher
  allow_methods=2:string allow_headers=3:string expose_headers=4:string max_age=5:string allow_credentials=6:bool?
  filter_enabled=7:config.core.v3.RuntimeFractionalPercent forward_not_matching_preflights=10:bool?
extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig
  dns_cache_config=1:extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig
extensions.filters.http.fault.v3.FaultAbort http_status=2:uint grpc_status=5:uint
  percentage=3:type.v3.FractionalPercent
extensions.filters.http.fault.v3.HTTPFault delay=1:extensions.filters.common.fault.v3.FaultDelay
  abort=2:extensions.filters.http.fault.v3.FaultAbort
extensions.filters.http.header_mutation.v3.HeaderMutation
  mutations=1:extensions.filters.http.header_mutation.v3.Mutations
extensions.filters.http.header_mutation.v3.Mutations
  request_mutations=1:*config.common.mutation_rules.v3.HeaderMutation
extensions.filters.http.jwt_authn.v3.JwtAuthentication
  providers=1:map:extensions.filters.http.jwt_authn.v3.JwtProvider
  rules=2:*extensions.filters.http.jwt_authn.v3.RequirementRule bypass_cors_preflight=4:bool
extensions.filters.http.jwt_authn.v3.JwtClaimToHeader header_name=1:string claim_name=2:string
extensions.filters.http.jwt_authn.v3.JwtHeader name=1:string value_prefix=2:string
extensions.filters.http.jwt_authn.v3.JwtProvider issuer=1:string audiences=2:*string
  local_jwks=4:config.core.v3.DataSource forward=5:bool
  from_headers=6:*extensions.filters.http.jwt_authn.v3.JwtHeader from_params=7:*string
  forward_payload_header=8:string payload_in_metadata=9:string clock_skew_seconds=10:uint
  claim_to_headers=15:*extensions.filters.http.jwt_authn.v3.JwtClaimToHeader
  normalize_payload_in_metadata=18:extensions.filters.http.jwt_authn.v3.JwtProvider.NormalizePayload
extensions.filters.http.jwt_authn.v3.JwtProvider.NormalizePayload space_delimited_claims=1:*string
extensions.filters.http.jwt_authn.v3.JwtRequirement provider_name=1:string
  requires_any=3:extensions.filters.http.jwt_authn.v3.JwtRequirementList
  requires_all=4:extensions.filters.http.jwt_authn.v3.JwtRequirementList allow_missing=6:google.protobuf.Empty
extensions.filters.http.jwt_authn.v3.JwtRequirementList
  requirements=1:*extensions.filters.http.jwt_authn.v3.JwtRequirement
extensions.filters.http.jwt_authn.v3.RequirementRule match=1:config.route.v3.RouteMatch
  requires=2:extensions.filters.http.jwt_authn.v3.JwtRequirement
extensions.filters.http.local_ratelimit.v3.LocalRateLimit stat_prefix=1:string status=2:type.v3.HttpStatus
  token_bucket=3:type.v3.TokenBucket filter_enabled=4:config.core.v3.RuntimeFractionalPercent
  filter_enforced=5:config.core.v3.RuntimeFractionalPercent
  response_headers_to_add=6:*config.core.v3.HeaderValueOption
  descriptors=8:*extensions.common.ratelimit.v3.LocalRateLimitDescriptor
  local_rate_limit_per_downstream_connection=11:bool always_consume_default_token_bucket=14:bool?
  rate_limited_as_resource_exhausted=15:bool rate_limits=17:*config.route.v3.RateLimit
extensions.filters.http.rbac.v3.RBAC rules=1:config.rbac.v3.RBAC rules_stat_prefix=6:string
extensions.filters.http.router.v3.Router
extensions.filters.listener.http_inspector.v3.HttpInspector
extensions.filters.listener.original_dst.v3.OriginalDst
extensions.filters.listener.tls_inspector.v3.TlsInspector
extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
  codec_type=1:extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.CodecType
  stat_prefix=2:string rds=3:extensions.filters.network.http_connection_manager.v3.Rds
  route_config=4:config.route.v3.RouteConfiguration
  http_filters=5:*extensions.filters.network.http_connection_manager.v3.HttpFilter use_remote_address=14:bool?
  normalize_path=30:bool? merge_slashes=33:bool
  path_with_escaped_slashes_action=45:extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.PathWithEscapedSlashesAction
  stream_idle_timeout=24:duration
  upgrade_configs=23:*extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig
  forward_client_cert_details=16:extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertDetails
  set_current_client_cert_details=17:extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails
  server_header_transformation=34:extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ServerHeaderTransformation
  access_log=13:*config.accesslog.v3.AccessLog xff_num_trusted_hops=19:uint
  early_header_mutation_extensions=52:*config.core.v3.TypedExtensionConfig
extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails uri=5:bool
  dns=4:bool subject=1:bool?
extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig upgrade_type=1:string
extensions.filters.network.http_connection_manager.v3.HttpFilter name=1:string typed_config=4:any
extensions.filters.network.http_connection_manager.v3.Rds config_source=1:config.core.v3.ConfigSource
  route_config_name=2:string
extensions.filters.network.local_ratelimit.v3.LocalRateLimit stat_prefix=1:string
  token_bucket=2:type.v3.TokenBucket share_key=4:string
extensions.filters.network.rbac.v3.RBAC rules=1:config.rbac.v3.RBAC stat_prefix=3:string
extensions.filters.network.tcp_proxy.v3.TcpProxy stat_prefix=1:string cluster=2:string
  weighted_clusters=10:extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster idle_timeout=8:duration
  max_downstream_connection_duration=13:duration hash_policy=11:*type.v3.HashPolicy
extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster
  clusters=1:*extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight
extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight name=1:string weight=2:uint
extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
  mutations=1:*config.common.mutation_rules.v3.HeaderMutation
extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig update_frequency=1:int
extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
  config=1:config.core.v3.ProxyProtocolConfig transport_socket=2:config.core.v3.TransportSocket
extensions.transport_sockets.raw_buffer.v3.RawBuffer
extensions.transport_sockets.tls.v3.CertificateProviderPluginInstance instance_name=1:string certificate_name=2:string
extensions.transport_sockets.tls.v3.CertificateValidationContext trusted_ca=1:config.core.v3.DataSource
  match_typed_subject_alt_names=15:*extensions.transport_sockets.tls.v3.SubjectAltNameMatcher
  ca_certificate_provider_instance=13:extensions.transport_sockets.tls.v3.CertificateProviderPluginInstance
  crl=7:config.core.v3.DataSource
extensions.transport_sockets.tls.v3.CommonTlsContext tls_params=1:extensions.transport_sockets.tls.v3.TlsParameters
  tls_certificates=2:*extensions.transport_sockets.tls.v3.TlsCertificate
  tls_certificate_sds_secret_configs=6:*extensions.transport_sockets.tls.v3.SdsSecretConfig
  tls_certificate_provider_instance=14:extensions.transport_sockets.tls.v3.CertificateProviderPluginInstance
  validation_context=3:extensions.transport_sockets.tls.v3.CertificateValidationContext
  combined_validation_context=8:extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext
  alpn_protocols=4:*string
extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext
  default_validation_context=1:extensions.transport_sockets.tls.v3.CertificateValidationContext
  validation_context_sds_secret_config=2:extensions.transport_sockets.tls.v3.SdsSecretConfig
extensions.transport_sockets.tls.v3.DownstreamTlsContext
  common_tls_context=1:extensions.transport_sockets.tls.v3.CommonTlsContext require_client_certificate=2:bool?
extensions.transport_sockets.tls.v3.SdsSecretConfig name=1:string sds_config=2:config.core.v3.ConfigSource
extensions.transport_sockets.tls.v3.Secret name=1:string
  tls_certificate=2:extensions.transport_sockets.tls.v3.TlsCertificate
  validation_context=4:extensions.transport_sockets.tls.v3.CertificateValidationContext
extensions.transport_sockets.tls.v3.SubjectAltNameMatcher
  san_type=1:extensions.transport_sockets.tls.v3.SubjectAltNameMatcher.SanType matcher=2:type.matcher.v3.StringMatcher
extensions.transport_sockets.tls.v3.TlsCertificate certificate_chain=1:config.core.v3.DataSource
  private_key=2:config.core.v3.DataSource
extensions.transport_sockets.tls.v3.TlsParameters
  tls_minimum_protocol_version=1:extensions.transport_sockets.tls.v3.TlsParameters.TlsProtocol
  tls_maximum_protocol_version=2:extensions.transport_sockets.tls.v3.TlsParameters.TlsProtocol
  cipher_suites=3:*string
extensions.transport_sockets.tls.v3.UpstreamTlsContext
  common_tls_context=1:extensions.transport_sockets.tls.v3.CommonTlsContext sni=2:string auto_host_sni=6:bool
extensions.upstreams.http.v3.HttpProtocolOptions common_http_protocol_options=1:config.core.v3.HttpProtocolOptions
  explicit_http_config=3:extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig
  use_downstream_protocol_config=4:extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig
extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig
  http_protocol_options=1:config.core.v3.Http1ProtocolOptions
  http2_protocol_options=2:config.core.v3.Http2ProtocolOptions
extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig
  http_protocol_options=1:config.core.v3.Http1ProtocolOptions
  http2_protocol_options=2:config.core.v3.Http2ProtocolOptions
service.discovery.v3.DeltaDiscoveryRequest node=1:config.core.v3.Node type_url=2:string
  resource_names_subscribe=3:*string resource_names_unsubscribe=4:*string initial_resource_versions=5:map:string
  response_nonce=6:string error_detail=7:google.rpc.Status
service.discovery.v3.DeltaDiscoveryResponse system_version_info=1:string resources=2:*service.discovery.v3.Resource
  type_url=4:string removed_resources=6:*string nonce=5:string
service.discovery.v3.DiscoveryRequest version_info=1:string node=2:config.core.v3.Node resource_names=3:*string
  type_url=4:string response_nonce=5:string error_detail=6:google.rpc.Status
service.discovery.v3.DiscoveryResponse version_info=1:string resources=2:*any type_url=4:string nonce=5:string
service.discovery.v3.Resource version=1:string resource=2:any name=3:string
type.matcher.v3.ListMatcher one_of=1:type.matcher.v3.ValueMatcher
type.matcher.v3.MetadataMatcher filter=1:string path=2:*type.matcher.v3.MetadataMatcher.PathSegment
  value=3:type.matcher.v3.ValueMatcher
type.matcher.v3.MetadataMatcher.PathSegment key=1:string
type.matcher.v3.OrMatcher value_matchers=1:*type.matcher.v3.ValueMatcher
type.matcher.v3.PathMatcher path=1:type.matcher.v3.StringMatcher
type.matcher.v3.RegexMatchAndSubstitute pattern=1:type.matcher.v3.RegexMatcher substitution=2:string
type.matcher.v3.RegexMatcher regex=2:string
type.matcher.v3.StringMatcher exact=1:string prefix=2:string suffix=3:string safe_regex=5:type.matcher.v3.RegexMatcher
  contains=7:string ignore_case=6:bool
type.matcher.v3.ValueMatcher string_match=3:type.matcher.v3.StringMatcher list_match=6:type.matcher.v3.ListMatcher
  or_match=7:type.matcher.v3.OrMatcher
type.v3.FractionalPercent numerator=1:uint denominator=2:type.v3.FractionalPercent.DenominatorType
type.v3.HashPolicy source_ip=1:type.v3.HashPolicy.SourceIp
type.v3.HashPolicy.SourceIp
type.v3.HttpStatus code=1:uint
type.v3.Percent value=1:double
type.v3.TokenBucket max_tokens=1:uint tokens_per_fill=2:uint? fill_interval=3:duration
google.protobuf.Empty
google.rpc.Status code=1:int message=2:string
"""

ENUMS = """
config.cluster.v3.Cluster.DiscoveryType STATIC=0 STRICT_DNS=1 LOGICAL_DNS=2 EDS=3 ORIGINAL_DST=4
config.cluster.v3.Cluster.DnsLookupFamily AUTO=0 V4_ONLY=1 V6_ONLY=2 V4_PREFERRED=3 ALL=4
config.cluster.v3.Cluster.LbPolicy ROUND_ROBIN=0 LEAST_REQUEST=1 RING_HASH=2 RANDOM=3 MAGLEV=5 CLUSTER_PROVIDED=6
  LOAD_BALANCING_POLICY_CONFIG=7
config.core.v3.ApiVersion AUTO=0 V2=1 V3=2
config.core.v3.HeaderValueOption.HeaderAppendAction APPEND_IF_EXISTS_OR_ADD=0 ADD_IF_ABSENT=1
  OVERWRITE_IF_EXISTS_OR_ADD=2 OVERWRITE_IF_EXISTS=3
config.core.v3.HealthStatus UNKNOWN=0 HEALTHY=1 UNHEALTHY=2 DRAINING=3 TIMEOUT=4 DEGRADED=5
config.core.v3.ProxyProtocolConfig.Version V1=0 V2=1
config.core.v3.RoutingPriority DEFAULT=0 HIGH=1
config.core.v3.SocketAddress.Protocol TCP=0 UDP=1
config.core.v3.TrafficDirection UNSPECIFIED=0 INBOUND=1 OUTBOUND=2
config.rbac.v3.RBAC.Action ALLOW=0 DENY=1 LOG=2
config.route.v3.RedirectAction.RedirectResponseCode MOVED_PERMANENTLY=0 FOUND=1 SEE_OTHER=2 TEMPORARY_REDIRECT=3
  PERMANENT_REDIRECT=4
config.route.v3.RouteAction.ClusterNotFoundResponseCode SERVICE_UNAVAILABLE=0 NOT_FOUND=1 INTERNAL_SERVER_ERROR=2
extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.CodecType AUTO=0 HTTP1=1 HTTP2=2 HTTP3=3
extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertDetails SANITIZE=0
  FORWARD_ONLY=1 APPEND_FORWARD=2 SANITIZE_SET=3 ALWAYS_FORWARD_ONLY=4
extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.PathWithEscapedSlashesAction
  IMPLEMENTATION_SPECIFIC_DEFAULT=0 KEEP_UNCHANGED=1 REJECT_REQUEST=2 UNESCAPE_AND_REDIRECT=3 UNESCAPE_AND_FORWARD=4
extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ServerHeaderTransformation OVERWRITE=0
  APPEND_IF_ABSENT=1 PASS_THROUGH=2
extensions.transport_sockets.tls.v3.SubjectAltNameMatcher.SanType SAN_TYPE_UNSPECIFIED=0 EMAIL=1 DNS=2 URI=3
  IP_ADDRESS=4 OTHER_NAME=5
extensions.transport_sockets.tls.v3.TlsParameters.TlsProtocol TLS_AUTO=0 TLSv1_0=1 TLSv1_1=2 TLSv1_2=3 TLSv1_3=4
type.v3.FractionalPercent.DenominatorType HUNDRED=0 TEN_THOUSAND=1 MILLION=2
"""
