package wire

// claimed is the API level that kontiki claims.
const claimed = "3.7.1"

// differences are all intended differences between etcd 3.5 and kontiki.
var differences = []difference{
	// Versions.
	{"member/status*", "response.version", "3.5.30", claimed, "kontiki claims the API level it implements"},
	{"member/status*", "response.storageVersion", absent, "3.7.0", "a field of 3.6"},
	{"member/status*", "response.dbSizeQuota", absent, "2147483648", "a field of 3.6"},
	{"member/status*", "response.downgradeInfo", absent, "present", "a field of 3.6"},
	{"member/http-version", "http.body", `{"etcdserver":"3.5.30","etcdcluster":"3.5.0"}`, `{"etcdserver":"` + claimed + `","etcdcluster":"3.7.0","storage":"3.7.0"}`, "kontiki claims the API level it implements; storage is a key of 3.6"},
	{"member/http-version", "http.header.Content-Length", "45", "62", "the length of the body"},

	// Storage: kontiki keeps a log and no database file.
	{"member/status*", "response.dbSize", measured, measured, "bytes of a database file against accounted bytes of keys and values"},
	{"member/status*", "response.dbSizeInUse", measured, measured, "as above"},

	// What 3.6 and later decide otherwise.
}
