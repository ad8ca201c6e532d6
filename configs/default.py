"""Every config key once, with its meaning, unit, and the paper's and the released program's value.

The other files in this folder start from this one and change a few lines. Any key can be changed on the command line:
`--config.optimizer.peak_lr=0.01`; `none` unsets an optional key.
"Released" is the authors' PyTorch program, "paper" the text of M2SNet (arXiv 2303.10894).
"""

from ml_collections import ConfigDict, config_dict


def get_config(variant: str | None = None, pretrained: bool = False) -> ConfigDict:
    """Returns the released recipe, or a variant of it, with the dataset still to be named.

    Args:
        variant: 'paper' follows the text of the paper where it differs from the released program. 'small' is the scale
            that two CPU cores learn in a quarter of an hour: 128 pixels, batch 8, no LossNet, random initial weights;
            its scores are not comparable with published ones.
        pretrained: start encoder and LossNet from ImageNet files, except in 'small'; they are downloaded once (see
            m2snet_jax/weights/pretrained.py).

    Raises:
        ValueError: an unknown variant.
    """
    if variant not in (None, 'paper', 'small'):
        raise ValueError(f'no variant {variant!r}: there are "paper" and "small"')
    config = ConfigDict()

    config.seed = 0  # initial weights, order, augmentation and sizes; never the test set (see data.seed)
    config.batch = 16  # images per step over all devices and hosts; paper and released: 16
    config.epochs = 50  # passes over the training images; paper and released: 50 for polyps
    config.steps = config_dict.placeholder(int)  # training steps; overrides epochs when set
    config.dtype = 'float32'  # convolutions in 'float32' or 'bfloat16' (released: float16 autocast)
    config.remat = False  # compute the encoder's stages again for the gradient instead of keeping them: less memory
    config.gradient_accumulation = 1  # parts of a batch, computed in turn to save memory; batch norm sees one at a time
    config.ema = config_dict.placeholder(float)  # decay of averaged weights, which are evaluated then; unset: none
    config.precise_batch_norm = 0  # batches over which running statistics are measured after training; released: none

    # Which step's model is scored and loaded: 'last' (paper and released), or the one with the highest Dice after an
    # epoch on the 'validation' split or on the 'test' sets. The latter flatters; every score sheet says so.
    config.select = 'last'
    config.select_on_test = False  # must be set for select='test'

    config.model = ConfigDict()
    config.model.name = 'm2snet'  # 'm2snet' or 'msnet'
    config.model.encoder = 'res2net50'  # 'res2net50', 'res2net101', or 'res2net14' (tests, quickstart)

    # Share of training after which the two batch norms that all subtraction units share keep their statistics; 1 is
    # released: never. Each of their twenty calls is normalised by itself in training, by one statistic in evaluation.
    config.model.freeze_shared_norms_after = 1.0
    config.model.encoder_weights = config_dict.placeholder(str)  # start of the encoder: name, .pth or .safetensors file
    config.model.weights = config_dict.placeholder(str)  # start of the whole model: a run's folder or a file

    config.loss = ConfigDict()
    config.loss.bce = 'mean'  # 'mean' is released (a legacy argument cancels the weights); 'weighted' is the paper's
    config.loss.lossnet = 0.1  # weight of LossNet, 0 switches it off; released: 0.1
    config.loss.lossnet_weights = config_dict.placeholder(str)  # 'vgg16' or a file; unset: random, not the papers'
    config.loss.lossnet_size = 224  # side in pixels at which LossNet compares map and mask; released: 224

    config.optimizer = ConfigDict()
    config.optimizer.peak_lr = 0.05  # highest learning rate, in the middle of training; paper and released: 0.05
    config.optimizer.encoder_lr_factor = 1.0  # the encoder's learning rate ÷ the others'; released: 1.0, paper: 0.1
    config.optimizer.freeze_stem = False  # do not train the stem (conv1, bn1), as the released filter was meant to
    config.optimizer.momentum = 0.9  # Nesterov momentum; paper and released: 0.9
    config.optimizer.weight_decay = 5e-4  # added to every gradient, batch norm and biases too; released: 5e-4
    config.optimizer.scale_lr_with_batch = False  # learning rates × batch / 16; paper and released: no

    config.data = ConfigDict()
    config.data.name = 'polyp'  # a file of m2snet_jax/data/datasets
    config.data.root = config_dict.placeholder(str)  # folder that holds the dataset; unset: the published download
    config.data.size = 352  # side in pixels of training images before sizes, and of every test image; released: 352
    config.data.sizes = (224, 256, 288, 320, 352)  # sides in pixels, one drawn for each batch; released: these
    config.data.classes = 1  # foreground classes: 1 is binary; more: masks hold class indices, 0 is background
    config.data.seed = 0  # of phantoms and splits; `seed` never changes the test set
    config.data.folds = 4  # number of folds, used if data.fold is set; the paper's BUSI: k-fold
    config.data.fold = config_dict.placeholder(int)  # fold that is the test, the others train; busi, goals, folder
    config.data.folds_file = config_dict.placeholder(str)  # table name,fold; unset: folds.csv beside the data, or drawn
    config.data.group_duplicates = False  # near-duplicates are in the same fold; busi, goals, folder
    config.data.exclude = config_dict.placeholder(str)  # file of names, one a line, to leave out of training only
    # The range from black to white of DICOM and NIfTI files with more than 8 bits. In a CT's Hounsfield units: 'lung'
    # (centre -600, width 1500), 'mediastinum' (50, 350), 'abdomen' (50, 400), 'liver' (30, 150), 'bone' (400, 1800),
    # 'brain' (40, 80). In any units: 'CENTRE,WIDTH'. 'file': each file's own.
    config.data.window = config_dict.placeholder(str)
    config.data.validation = config_dict.placeholder(float)  # held out of training: a share, or a number from 1 on
    config.data.count = 200  # phantoms: images generated for training
    config.data.test_count = 50  # phantoms: images generated for the test
    config.data.cache = True  # keep decoded images in memory
    config.data.threads = 2  # threads that augment images

    config.log = ConfigDict()
    config.log.every = 20  # steps between two lines of the log
    config.log.images = 4  # images whose maps are shown: ten times in training, and of each test set at the end
    config.log.tensorboard = True  # also write TensorBoard event files
    config.log.wandb = False  # also log to Weights & Biases, which sends data out unless WANDB_MODE=offline
    config.log.profile = config_dict.placeholder(str)  # steps to trace for TensorBoard and Perfetto, as "101:103"

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 200  # steps between two checkpoints; the last step is always saved
    config.checkpoint.keep = 2  # newest checkpoints kept

    config.evaluate = ConfigDict()
    config.evaluate.batch = 8  # test images per prediction step
    config.evaluate.bootstrap = 2000  # resamples behind each 95 % interval of a score; 0: no intervals

    if variant == 'paper':
        config.loss.bce = 'weighted'
        config.optimizer.encoder_lr_factor = 0.1
    if variant == 'small':
        config.data.size = 128
        config.data.sizes = (96, 112, 128)
        config.batch = 8
        config.loss.lossnet = 0.0
    elif pretrained:
        config.model.encoder_weights = 'res2net50'
        config.loss.lossnet_weights = 'vgg16'
    return config
