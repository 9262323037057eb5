import numpy as np

from gradcam_bench.regions.points import peak, peaks

HEATMAP = np.array([[0.0, 1.0, -2.0], [1.0, 0.5, 1.0]])


def test_peak_is_the_first_maximum_in_row_major_order():
    assert peak(HEATMAP) == (0, 1)
    assert peak(HEATMAP.T) == (0, 1)
    assert peak(np.full((3, 4), -1.0)) == (0, 0)
    assert all(type(i) is int for i in peak(HEATMAP))


def test_peaks_are_all_maxima():
    assert peaks(HEATMAP).tolist() == [[0, 1], [1, 0], [1, 2]]
    assert peaks(np.zeros((2, 2))).shape == (4, 2)
