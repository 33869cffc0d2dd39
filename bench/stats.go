package main

// This file has medians, spreads and quantiles, and formats numbers for people.

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// A spread summarizes one figure over several rounds.
type spread struct{ median, least, most float64 }

// spreadOf returns the spread of at least one value.
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return spread{median, sorted[0], sorted[len(sorted)-1]}
}

// quantile returns the smallest value that a share q of sorted does not exceed, or 0 if sorted is
// empty.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// String returns the median, and the minimum and the maximum if they look different.
func (s spread) String() string {
	median, least, most := number(s.median), number(s.least), number(s.most)
	if least == most {
		return median
	}
	return median + " (" + least + "–" + most + ")"
}

// number formats v with three significant digits, as "1.23 M", "12.3 k", "123" or "0.123".
func number(v float64) string {
	switch {
	case v >= 999.5e3:
		return threeDigits(v/1e6) + " M"
	case v >= 9995:
		return threeDigits(v/1e3) + " k"
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return threeDigits(v)
}

func threeDigits(v float64) string {
	digits := 0
	switch {
	case v == 0:
	case v < 0.9995:
		digits = 3
	case v < 9.995:
		digits = 2
	case v < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// thousands returns n as "1,234".
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
