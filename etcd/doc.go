// Package etcd keeps a log in etcd: entries that everyone who reads them gets in the same order.
package etcd
