package conns

import "testing"

// Addresses belong here. Which addresses a server listens at, and what is wrong with others, is
// tested in e2e.

func TestURLKeepsTheZoneOfAnAddress(t *testing.T) {
	const want = "[fe80::1%25eth0]:8081"
	if got := URLHost("[fe80::1%eth0]:0", "[fe80::1]:8081"); got != want {
		t.Errorf("the address is printed as %q, want %q", got, want)
	}
}
