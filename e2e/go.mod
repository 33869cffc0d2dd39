module lobby/e2e

go 1.26
