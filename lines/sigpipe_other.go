//go:build !unix

package lines

func ignoreSIGPIPE() {}
