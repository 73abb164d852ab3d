package cpu

import "testing"

func BenchmarkMicro(b *testing.B) {
	const n = 1024
	x, y, z := make([]float32, n), make([]float32, n), make([]float32, n)
	d1, d2 := make([]float32, n), make([]float32, n)
	for i := range x {
		x[i] = float32(i%17)/4 - 2
		y[i] = 1
	}
	v := choose("")
	run := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f()
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/n, "ns/elem")
		})
	}
	run("silu", func() { v.gated[0](z, x, y) })
	run("gelu", func() { v.gated[1](z, x, y) })
	run("gelutanh", func() { v.gated[2](z, x, y) })
	run("silugrad", func() { v.gatedGrad[0](d1, d2, x, y, z) })
	run("exp", func() { v.exp(z, 0); })
	run("score", func() { v.score(z, d1, 0, 0, 0); })
	run("max", func() { v.maxOf(x) })
	run("add", func() { v.add(z, x, y) })
	run("sumsq", func() { v.sumSquares(x) })
	run("normalize", func() { v.normalize(z, x, y, 1) })
	run("dot", func() { v.dot[1](x, &bytesOf(matrix{y, 1, n, n}).data[0]) })
	a, bb, c := make([]float32, 6*304), make([]float32, 16*304), make([]float32, 96)
	for _, k := range []int{16, 64, 128, 288} {
		b.Run("tilePacked", func(b *testing.B) {
			for b.Loop() {
				v.tilePacked(k, &a[0], &bb[0], &c[0], 16, 1, true)
			}
			b.ReportMetric(float64(b.N)*192*float64(k)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
		b.Run("tile", func(b *testing.B) {
			for b.Loop() {
				v.tile(k, &a[0], 304, 1, &bb[0], 16, &c[0], 16, 1, true)
			}
			b.ReportMetric(float64(b.N)*192*float64(k)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
	w := make([]byte, 16*304*4)
	dst := make([]float32, 16*304)
	for _, dt := range []int{1, 3, 4} {
		_ = dt
	}
	b.Run("across32", func(b *testing.B) {
		for b.Loop() {
			v.across[1](&dst[0], &w[0], 304*4, 304, 1)
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/304/16, "ns/elem")
	})
	b.Run("across16", func(b *testing.B) {
		for b.Loop() {
			v.across[4](&dst[0], &w[0], 304*2, 304, 1)
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/304/16, "ns/elem")
	})
	b.Run("along32", func(b *testing.B) {
		for b.Loop() {
			v.along[1](&dst[0], &w[0], 64, 304, 1)
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/304/16, "ns/elem")
	})
	b.Run("across6", func(b *testing.B) {
		for b.Loop() {
			v.across6(&dst[0], &w[0], 304*4, 304)
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/304/6, "ns/elem")
	})
}
