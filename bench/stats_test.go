package main

import "testing"

func TestSpreadHasMedianMinimumAndMaximum(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
		text   string
	}{
		{[]float64{3}, spread{3, 3, 3}, "3.00"},
		{[]float64{30, 10, 20}, spread{20, 10, 30}, "20.0 (10.0–30.0)"},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}, "2.50 (1.00–4.00)"},
		{[]float64{100.1, 100.2, 100.3}, spread{100.2, 100.1, 100.3}, "100"},
	} {
		got := spreadOf(c.values)
		if got != c.want || got.String() != c.text {
			t.Errorf("%v: got %v, %q, want %v, %q", c.values, got, got.String(), c.want, c.text)
		}
	}
}

func TestQuantileIsTheValueThatAShareDoesNotExceed(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, c := range []struct {
		sorted  []float64
		q, want float64
	}{
		{nil, 0.5, 0}, {[]float64{7}, 0.5, 7}, {[]float64{7}, 0.99, 7},
		{hundred, 0, 1}, {hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100},
	} {
		if got := quantile(c.sorted, c.q); got != c.want {
			t.Errorf("the quantile %v of %d values is %v, want %v", c.q, len(c.sorted), got, c.want)
		}
	}
}

func TestNumbersHaveThreeSignificantDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0304: "0.030", 0.9994: "0.999", 0.9996: "1.00", 9.996: "10.0", 99.96: "100",
		123.4: "123", 1234: "1234", 9994: "9994", 9996: "10.0 k", 54_500: "54.5 k",
		999_400: "999 k", 999_600: "1.00 M", 11_540_000: "11.5 M",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}

func TestThousandsAreSeparatedByCommas(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1_020_003: "1,020,003"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}
